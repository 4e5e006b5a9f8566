//go:build linux

package vpn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lifeline-go/lifeline/agent/lab"
)

// Where the office is, and the laptop.
const (
	officeAddr = "10.80.0.2"
	laptopAddr = "10.80.0.1"
	nobody     = "65534"
)

// swallow is what the VPN does with questions.
const swallow = `
table inet vpn {
	chain in {
		type filter hook prerouting priority raw
		ip daddr ` + Nameserver + ` drop
	}
}`

// play is a replay while it runs.
type play struct {
	*Replay
	laptop  *lab.Etc
	office  *office
	telling sync.Mutex
}

// build makes the laptop and the office. What cannot be made in the lab ends
// Run.
func (p *play) build(l *lab.Lab) (err error) {
	laptop, office := l.Host("laptop"), l.Host("office")
	l.Wire(laptop, laptopAddr+"/24", office, officeAddr+"/24")
	office.Run("ip", "addr", "add", Nameserver+"/24", "dev", "eth0")
	office.Run("nft", swallow)
	p.laptop = laptop.Etc(map[string]string{
		"resolv.conf":   "nameserver " + Nameserver + "\n",
		"nsswitch.conf": "hosts: files lab dns\n",
		"hosts":         "127.0.0.1 localhost\n",
	})
	p.laptop.Module("*.corp.test " + officeAddr + "\n")
	if p.office, err = openOffice(office.Listen, officeAddr); err != nil {
		return err
	}
	if err := p.equip(); err != nil {
		p.office.close()
		return err
	}
	return nil
}

// equip gives the user of the laptop programs that may be read and executed by
// anybody, kubectl's configuration, and a home.
func (p *play) equip() error {
	program, err := os.Open(p.Program)
	if err != nil {
		return err
	}
	defer program.Close()
	copied, err := os.OpenFile(p.file("lifeline"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(copied, program); err != nil {
		copied.Close()
		return err
	}
	if err := copied.Close(); err != nil {
		return err
	}
	if err := errors.Join(os.Link(p.file("lifeline"), p.file(pluginFile)), os.Mkdir(p.file("home"), 0o777)); err != nil {
		return err
	}
	if err := os.Chmod(p.file("home"), 0o777); err != nil { // whatever the umask
		return err
	}
	if err := os.WriteFile(p.file(caFile), p.office.ca, 0o644); err != nil {
		return err
	}
	config, err := json.Marshal(p.kubeConfig())
	if err != nil {
		return err
	}
	return os.WriteFile(p.file(configFile), config, 0o644)
}

func (p *play) file(name string) string { return filepath.Join(p.laptop.Dir(), name) }

// kubeConfig is JSON, which is YAML too.
func (p *play) kubeConfig() any {
	type object = map[string]any
	return object{
		"apiVersion": "v1", "kind": "Config", "current-context": "lab",
		"contexts": []object{{"name": "lab", "context": object{"cluster": "office", "user": "keystone"}}},
		"clusters": []object{{"name": "office", "cluster": object{"server": "https://" + apiName + ":" + apiPort, "certificate-authority": p.file(caFile)}}},
		"users": []object{{"name": "keystone", "user": object{"exec": object{
			"apiVersion": "client.authentication.k8s.io/v1", "command": p.file(pluginFile),
			"args": p.PluginArgs(p.laptop.Dir(), false), "interactiveMode": "Never",
		}}}},
	}
}

// clients runs all of them: those that nothing helps, which only wait, beside
// the others, which come one after the other.
func (p *play) clients(ctx context.Context) []Result {
	lifeline := p.file("lifeline")
	static := func(install bool) []string {
		return append([]string{lifeline}, p.ClientArgs(p.laptop.Dir(), install)...)
	}
	run := func(client []string, flags ...string) []string {
		return slices.Concat([]string{lifeline, "run"}, flags, []string{"--"}, client)
	}
	type client struct {
		Result
		command []string
	}
	var all []client
	add := func(name string, with With, command []string) {
		all = append(all, client{Result{Client: name, With: with}, command})
	}
	add(Getent, System, []string{"getent", "ahosts", apiName})
	if p.Kubectl != "" {
		kubectl := []string{p.Kubectl, "--kubeconfig", p.file(configFile), "--request-timeout", p.Wait.String(), "get", "nodes"}
		add(Kubectl, Alone, kubectl)
		add(Kubectl, Run, run(kubectl))
		add(Kubectl, Proxy, run(kubectl, "--via", "proxy"))
	}
	add(Static, Alone, static(false))
	add(Static, Run, run(static(false)))
	add(Static, Proxy, run(static(false), "--via", "proxy"))
	add(Static, Library, static(true))

	var waiting sync.WaitGroup
	for i := range all {
		if c := &all[i]; c.With == Alone {
			waiting.Go(func() { p.client(ctx, &c.Result, c.command) })
		}
	}
	results := make([]Result, len(all))
	for i := range all {
		if c := &all[i]; c.With != Alone {
			p.client(ctx, &c.Result, c.command)
		}
	}
	waiting.Wait()
	for i := range all {
		results[i] = all[i].Result
	}
	return results
}

// client runs one, as an ordinary user without capabilities.
func (p *play) client(ctx context.Context, r *Result, command []string) {
	ctx, cancel := context.WithTimeout(ctx, p.Wait)
	defer cancel()
	cmd := p.laptop.Command("setpriv", slices.Concat([]string{
		"--reuid", nobody, "--regid", nobody, "--clear-groups", "--inh-caps", "-all", "--bounding-set", "-all", "--",
	}, command)...)
	cmd.Env = []string{"HOME=" + p.file("home"), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &said, time.Second
	began := time.Now()
	err := cmd.Start()
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // an error says that it is gone
		err = cmd.Wait()
		stop()
	}
	r.Took, r.OK = time.Since(began), err == nil
	switch {
	case err == nil:
		r.Said = lastLine(out.String(), io.EOF)
		if r.Client == Getent {
			r.Said, _, _ = strings.Cut(out.String(), "\n") // the others say the same in other words
		}
	case ctx.Err() != nil:
		r.Said = fmt.Sprintf("nothing, for %v", p.Wait)
	default:
		r.Said = lastLine(said.String(), err)
	}
	r.Said = strings.NewReplacer(p.laptop.Dir()+"/", "", "lifeline lab names-client: ", "", "lifeline lab names-plugin: ", pluginFile+": ").Replace(strings.TrimSpace(r.Said))
	p.telling.Lock()
	defer p.telling.Unlock()
	p.Event(*r)
}
