package sshconf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A shape is how the lines of one directive make its value.
type shape int

const (
	ignored  shape = iota // known, and of no meaning for a connection of this package
	first                 // one word; the first line counts
	list                  // words; the first line counts
	more                  // one word a line; every line counts
	all                   // words; every line counts
	rawFirst              // the line as it is; the first counts
	untaken               // known, not followed, and worth a warning
)

// directive is one of those that ssh_config(5) has.
type directive struct {
	shape shape
	check func(value string) error // of each word; nil takes all
}

// directives are those that OpenSSH 10.0 knows, and older names of them.
var directives = map[string]directive{
	"addressfamily":                {first, oneOf("any", "inet", "inet6")},
	"batchmode":                    {first, yesNo},
	"bindaddress":                  {first, nil},
	"certificatefile":              {more, nil},
	"ciphers":                      {first, nil},
	"connecttimeout":               {first, timeOrNone},
	"globalknownhostsfile":         {list, nil},
	"hashknownhosts":               {first, yesNo},
	"hostkeyalgorithms":            {first, nil},
	"hostkeyalias":                 {first, nil},
	"hostname":                     {first, nil},
	"identitiesonly":               {first, yesNo},
	"identityagent":                {first, nil},
	"identityfile":                 {more, nil},
	"ignoreunknown":                {first, nil},
	"kbdinteractiveauthentication": {first, yesNo},
	"kexalgorithms":                {first, nil},
	"macs":                         {first, nil},
	"numberofpasswordprompts":      {first, number},
	"passwordauthentication":       {first, yesNo},
	"port":                         {first, portNumber},
	"preferredauthentications":     {first, nil},
	"proxycommand":                 {rawFirst, nil},
	"proxyjump":                    {rawFirst, nil},
	"pubkeyauthentication":         {first, oneOf("yes", "true", "no", "false", "unbound", "host-bound")},
	"revokedhostkeys":              {first, nil},
	"sendenv":                      {all, nil},
	"serveralivecountmax":          {first, number},
	"serveraliveinterval":          {first, timeOrNone},
	"setenv":                       {list, nil},
	"stricthostkeychecking":        {first, oneOf("yes", "true", "no", "false", "ask", "off", "accept-new")},
	"tag":                          {first, nil},
	"user":                         {first, nil},
	"userknownhostsfile":           {list, nil},

	"bindinterface": {untaken, nil}, "canonicalizehostname": {untaken, nil}, "casignaturealgorithms": {untaken, nil},
	"knownhostscommand": {untaken, nil}, "pkcs11provider": {untaken, nil}, "proxyusefdpass": {untaken, nil},
	"pubkeyacceptedalgorithms": {untaken, nil}, "requiredrsasize": {untaken, nil}, "securitykeyprovider": {untaken, nil},
	"verifyhostkeydns": {untaken, nil}, "nohostauthenticationforlocalhost": {untaken, nil},
}

// olderNames are what some directives are called as well.
var olderNames = map[string]string{
	"challengeresponseauthentication": "kbdinteractiveauthentication", "skeyauthentication": "kbdinteractiveauthentication",
	"tisauthentication": "kbdinteractiveauthentication", "dsaauthentication": "pubkeyauthentication",
	"globalknownhostsfile2": "globalknownhostsfile", "userknownhostsfile2": "userknownhostsfile",
	"identityfile2": "identityfile", "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms", "smartcarddevice": "pkcs11provider",
}

// without are directives that say nothing of how to connect: what to forward,
// how to look, what else to do with the connection.
var without = strings.Fields(`
addkeystoagent canonicaldomains canonicalizefallbacklocal canonicalizemaxdots canonicalizepermittedcnames channeltimeout
checkhostip clearallforwardings compression compressionlevel connectionattempts controlmaster controlpath controlpersist
dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash forkafterauthentication
forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports gssapiauthentication gssapiclientidentity
gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes ipqos keepalive localcommand localforward loglevel
logverbose obscurekeystroketiming permitlocalcommand permitremoteopen rekeylimit remotecommand remoteforward requesttty
sessiontype stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tcpkeepalive tunnel tunneldevice updatehostkeys
versionaddendum visualhostkey warnweakcrypto xauthlocation refuseconnection
cipher fallbacktorsh globalknownhostsfile2 protocol rhostsauthentication rhostsrsaauthentication rsaauthentication useprivilegedport
useroaming usersh`)

// directiveOf returns what a keyword means, and its present name.
func directiveOf(keyword string) (name string, d directive, known bool) {
	if newer, ok := olderNames[keyword]; ok {
		keyword = newer
	}
	d, known = directives[keyword]
	return keyword, d, known || slices.Contains(without, keyword)
}

// value parses the rest of a line.
func (d directive) value(rest string) ([]string, error) {
	if d.shape == ignored {
		return nil, nil
	}
	if d.shape == rawFirst {
		if rest == "" {
			return nil, errors.New("has no value")
		}
		return []string{rest}, nil
	}
	values, err := words(rest)
	switch {
	case err != nil:
		return nil, err
	case len(values) == 0 && d.shape != all && d.shape != untaken:
		return nil, errors.New("has no value")
	case len(values) > 1 && (d.shape == first || d.shape == more):
		return nil, fmt.Errorf("has more than one value: %q", values[1])
	}
	for _, v := range values {
		if v == "" && d.shape != list {
			return nil, errors.New("has an empty value")
		}
		if d.check == nil {
			continue
		}
		if err := d.check(v); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func oneOf(words ...string) func(string) error {
	return func(value string) error {
		if slices.Contains(words, strings.ToLower(value)) {
			return nil
		}
		return fmt.Errorf("%q is none of %s", value, strings.Join(words, ", "))
	}
}

func yesNo(value string) error { return oneOf("yes", "true", "no", "false")(value) }

func isYes(value string) bool {
	value = strings.ToLower(value)
	return value == "yes" || value == "true"
}

func number(value string) error {
	if n, err := strconv.ParseInt(value, 10, 32); err != nil || n < 0 {
		return fmt.Errorf("%q is no number from 0 on", value)
	}
	return nil
}

func portNumber(value string) error {
	if n, err := strconv.ParseUint(value, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is no port, which are numbers from 1 to 65535", value)
	}
	return nil
}

func timeOrNone(value string) error {
	_, err := parseTime(value)
	return err
}

// longestTime keeps arithmetic with times from overflowing: a year.
const longestTime = 365 * 24 * time.Hour

// parseTime parses a time as sshd_config(5) has them, 90 or 1h30m; none is zero.
func parseTime(value string) (total time.Duration, err error) {
	if strings.EqualFold(value, "none") {
		return 0, nil
	}
	wrong := fmt.Errorf("%q is no time: write 90, 90s or 1m30s", value)
	for rest := value; rest != "" || value == ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseInt(rest[:digits], 10, 32)
		if err != nil {
			return 0, wrong
		}
		unit := time.Second
		rest = rest[digits:]
		if rest != "" {
			units := map[byte]time.Duration{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}
			if unit = units[rest[0]|0x20] * time.Second; unit == 0 {
				return 0, wrong
			}
			rest = rest[1:]
		}
		if n > int64(longestTime/unit) || total+time.Duration(n)*unit > longestTime {
			return 0, fmt.Errorf("%q is more than a year", value)
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}
