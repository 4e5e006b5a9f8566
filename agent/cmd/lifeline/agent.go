package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/export"
	"github.com/lifeline-go/lifeline/agent/node"
	"github.com/lifeline-go/lifeline/agent/profile"
	"github.com/lifeline-go/lifeline/agent/state"
	"github.com/lifeline-go/lifeline/agent/verdict"
	"github.com/lifeline-go/lifeline/agent/web"
)

// agentName is the command's name.
const agentName = "agent"

// shortestToken keeps a token from being guessed.
const shortestToken = 16

// errEnded is the end of a command that is meant to go on until it is told to end:
// all is well.
var errEnded = errors.New("ended")

// agentFlags are the flags of lifeline agent as typed.
type agentFlags struct {
	listen, tokenFile string
	policy, webhook   string
	otlp              otlpFlags
	history           historyFlags
	passive           bool
	netns             string
	acts              actFlags
}

func newAgent() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   agentName,
		Short: "Keeps watch, and shows what it knows on a page and by an API",
		Long: "Watches this machine until it is told to end: peers all the time, sockets, calls and leaks every 10 s or\n" +
			"so, names every minute; each on its own, so that none holds up another. It prints the address of its\n" +
			"page, and one line for each finding that comes or goes. It asks nameservers one question a minute and\n" +
			"pokes peers that do not answer; with --passive it sends nothing.\n\n" +
			"It changes nothing but what the acts of its policy file allow (docs/policy.md). Of each act there is a line\n" +
			"in the file of --audit before it begins, and another with what came of it; where that cannot be written\n" +
			"nothing is done. An evac is done when systemd says that the machine goes down, when lifeline agent\n" +
			"notify-shutdown does, and when the agent is told to end while the file of --shutdown-file exists.\n\n" +
			"The page and the API (/api/v1/state, /api/v1/stream, /metrics) are for this machine. Elsewhere they are\n" +
			"only served with --token-file, whose token each request must carry: Authorization: Bearer TOKEN. It is not\n" +
			"encrypted: put it behind a proxy or a tunnel that is.",
		Example: "  lifeline agent                            page and API on 127.0.0.1:7117\n" +
			"  lifeline agent --json                     each finding as one JSON object a line\n" +
			"  curl -s 127.0.0.1:7117/api/v1/findings    what is open now",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAgent(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:7117", "`address` and port of page and API")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that requests must carry; needed off loopback")
	flags.BoolVar(&f.passive, "passive", false, "send nothing: ask no nameserver, poke no peer")
	flags.StringVar(&f.policy, "policy", "", "policy `file`: what to watch, to leave out and to do; read again on SIGHUP (docs/policy.md)")
	flags.StringVar(&f.webhook, "webhook", "", "`URL` of an Alertmanager, or what takes its alerts, to tell of findings")
	f.otlp.add(flags)
	f.history.add(flags)
	flags.StringVar(&f.netns, "netns", "", "network namespace: all, self, a PID, a `name` of /run/netns or a path (default all)")
	f.acts.add(flags)
	cmd.AddCommand(newAgentStatus(), newNotifyShutdown())
	cmd.Annotations = map[string]string{exitCodes: "0 ended by a signal, 2 wrong usage, 3 could not begin or go on"}
	return cmd
}

// check says what is wrong with the flags, and reads the token.
func (f *agentFlags) check() (token string, err error) {
	host, port, err := net.SplitHostPort(f.listen)
	if err != nil || port == "" {
		return "", fmt.Errorf("--listen %q is no address: take one such as 127.0.0.1:7117", f.listen)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case strings.EqualFold(host, "localhost"):
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case host == "":
		return "", fmt.Errorf("--listen %q names no address: take 127.0.0.1:%s, or 0.0.0.0:%s for all", f.listen, port, port)
	case err != nil:
		return "", fmt.Errorf("--listen %q: %q is no IP address: take one such as 127.0.0.1", f.listen, host)
	}
	if f.tokenFile == "" {
		if !addr.IsLoopback() {
			return "", fmt.Errorf("--listen %s would show everybody on the network what this machine does: add --token-file FILE, or take 127.0.0.1:%s", f.listen, port)
		}
		return "", nil
	}
	return readToken(f.tokenFile)
}

// readSecret reads the file of a flag, which nobody else can read.
func readSecret(flag, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s %s can be read by others: chmod 600 %s", flag, path, path)
	}
	text, err := io.ReadAll(io.LimitReader(file, 4096))
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return string(bytes.TrimSpace(text)), nil
}

// readToken reads a token from a file.
func readToken(path string) (string, error) {
	token, err := readSecret("--token-file", path)
	if err != nil {
		return "", err
	}
	if len(token) < shortestToken || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("--token-file %s has no good token: put one line of %d characters or more in it, such as openssl rand -hex 16 makes", path, shortestToken)
	}
	return token, nil
}

func runAgent(cmd *cobra.Command, f *agentFlags) error {
	token, err := f.check()
	if err != nil {
		return usageError{err}
	}
	receiver, err := f.otlp.read()
	if err != nil {
		return usageError{err}
	}
	past, err := f.history.keeper()
	if err != nil {
		return usageError{err}
	}
	told, err := readAgentPolicy(f.policy, f.webhook, f.passive)
	if err != nil {
		return usageError{err}
	}
	of, err := node.ParseNamespaces(f.netns)
	if err != nil {
		return usageError{err}
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	defer told.hear()()
	defer oneProcessor()()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return blindError{fmt.Errorf("cannot listen: %w", err)}
	}
	d := daemon.New(daemon.Options{Version: versionText(), Rights: rights(), Naming: naming(!f.passive), Passive: f.passive, History: past.kept(), Namespaces: of})
	log, page := agentLog(cmd), "http://"+l.Addr().String()+"/"
	acts := newAgentActs(f, token, d, of, log)
	var hook *export.Webhook
	if told.webhook != "" {
		hook = &export.Webhook{URL: told.webhook, Page: page}
	}
	served := web.Options{Agent: d, Listen: f.listen, Token: token, Metrics: export.Handler(d.State, hook), History: past.reader, Acts: acts}
	parts := []func() error{
		func() error { return runDaemon(ctx, d, log) },
		func() error { return web.Serve(ctx, l, served) },
		func() error { return tellFindings(ctx, d, log, page) },
		func() error { return told.follow(ctx, log, d.SetPolicy, acts.setPolicy) },
		func() error { return acts.run(ctx, f.policy != "") },
		func() error { return past.run(ctx, d, log) },
		func() error { return keepSmall(ctx) },
		func() error { return tellManager(ctx, d, log) },
	}
	if hook != nil {
		parts = append(parts, func() error { return feed(ctx, d, hook) })
	}
	if receiver != nil {
		receiver.begin(d, hook, log)
		parts = append(parts, func() error { return feed(ctx, d, receiver) })
	}
	if err := together(stop, parts); err != nil {
		return blindError{err}
	}
	return errEnded
}

// oneProcessor has the agent run on one processor at a time, unless GOMAXPROCS says
// otherwise: it needs a hundredth of one, and with more of them the runtime spends
// a fifth on top on waking threads that find nothing to do. undo takes that back.
func oneProcessor() (undo func()) {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}

// together runs the parts of the agent. None goes on without the others: stop ends
// them all.
func together(stop func(), parts []func() error) (err error) {
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() {
			ended <- part()
			stop()
		}()
	}
	for range parts {
		err = cmp.Or(err, <-ended)
	}
	return err
}

// runDaemon watches until ctx ends. Sources that do not end are left behind: that
// is said, and no failure of an agent that was told to end.
func runDaemon(ctx context.Context, d *daemon.Daemon, log *slog.Logger) error {
	if err := d.Run(ctx); err != nil {
		log.Warn("ended all the same", "error", err.Error())
	}
	return nil
}

// agentLog writes one line for each event.
func agentLog(cmd *cobra.Command) *slog.Logger {
	if asJSON(cmd) {
		return slog.New(slog.NewJSONHandler(cmd.OutOrStdout(), nil))
	}
	return slog.New(slog.NewTextHandler(cmd.OutOrStdout(), nil))
}

// levels are those of findings in the log.
var levels = map[verdict.Severity]slog.Level{verdict.Info: slog.LevelInfo, verdict.Warn: slog.LevelWarn, verdict.Fail: slog.LevelError}

// tellFindings writes where the page is, each finding that comes or goes, and what
// cannot be seen, until ctx ends. What a cause explains is not told.
func tellFindings(ctx context.Context, d *daemon.Daemon, log *slog.Logger, page string) error {
	tellRights(log)
	log.Info("watching", "page", page, "run", d.State().Run)
	open := make(map[string]bool)
	var unseen gaps
	for seq := uint64(0); ; {
		s, err := d.Wait(ctx, seq)
		if err != nil {
			log.Info("ended")
			return nil
		}
		seq = s.Seq
		unseen.tell(log, s)
		now := make(map[string]bool)
		for i := range s.Findings {
			tellFinding(log, &s.Findings[i], open, now)
		}
		open = now
	}
}

// tellRights writes what the agent's rights allow, and warns of what stays unseen.
func tellRights(log *slog.Logger) {
	r, level := rights(), slog.LevelInfo
	if r.Name == profile.Partial {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "rights", "profile", r.Name, "missing", r.Lacks())
}

// tellFinding writes a finding that is not open yet, or was.
func tellFinding(log *slog.Logger, f *state.Finding, open, now map[string]bool) {
	about := []any{"code", f.Code, "promise", f.Promise.String(), "title", f.Title, "id", f.ID, "first_seen", f.First.Format(time.RFC3339)}
	if f.Count > 0 {
		about = append(about, "count", f.Count)
	}
	switch was := open[f.ID]; {
	case f.Resolved != nil && was:
		log.Info("finding is over", append(about, "resolved", f.Resolved.Format(time.RFC3339))...)
	case f.Resolved == nil && (was || f.Cause == ""):
		if now[f.ID] = true; !was {
			about = append(about, "severity", f.Severity.String())
			if _, ok := log.Handler().(*slog.JSONHandler); ok { // for programs: what it rests on and what to do
				about = append(about, "subject", f.Subject, "evidence", f.Evidence, "why", f.Why, "fix", f.Fix)
			}
			log.Log(context.Background(), levels[f.Severity], "finding", about...)
		}
	}
}
