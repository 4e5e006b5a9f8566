package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"

	"github.com/spf13/pflag"

	"github.com/lifeline-go/lifeline/agent/daemon"
	"github.com/lifeline-go/lifeline/agent/export"
	"github.com/lifeline-go/lifeline/agent/otlp"
)

// What OpenTelemetry's exporters are told by the environment, by the same names.
const (
	otlpHeaders     = "OTEL_EXPORTER_OTLP_HEADERS"
	otlpCertificate = "OTEL_EXPORTER_OTLP_CERTIFICATE"
	otlpClient      = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
	otlpClientKey   = "OTEL_EXPORTER_OTLP_CLIENT_KEY"
)

// otlpFlags are the flags of lifeline agent about a receiver of OTLP.
type otlpFlags struct{ url, headersFile string }

func (f *otlpFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "otlp", "", "`URL` of an OTLP receiver, such as http://127.0.0.1:4318, to send metrics and findings to; "+otlpHeaders+" and the like are heeded")
	flags.StringVar(&f.headersFile, "otlp-headers-file", "", "`file` with headers for it, such as Authorization=Bearer%20TOKEN, one a line; readable by nobody else")
}

// otlpReceiver is a receiver that is told what the agent knows.
type otlpReceiver struct{ *otlp.Sender }

// read checks all that is said of the receiver; nil is none.
func (f *otlpFlags) read() (*otlpReceiver, error) {
	if f.url == "" {
		if f.headersFile != "" {
			return nil, errors.New("--otlp-headers-file is of no use without --otlp")
		}
		return nil, nil
	}
	if err := otlp.CheckURL(f.url); err != nil {
		return nil, fmt.Errorf("--otlp: %w", err)
	}
	s := &otlp.Sender{URL: f.url}
	text, from := os.Getenv(otlpHeaders), otlpHeaders
	if f.headersFile != "" {
		var err error
		if text, err = readSecret("--otlp-headers-file", f.headersFile); err != nil {
			return nil, err
		}
		from = "--otlp-headers-file " + f.headersFile
	}
	var err error
	if s.Header, err = otlp.Headers(text); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	s.TLS, err = otlpTLS()
	return &otlpReceiver{s}, err
}

// otlpTLS is whom to trust and as whom to come, by the environment; nil is as
// usual.
func otlpTLS() (*tls.Config, error) {
	authority, cert, key := os.Getenv(otlpCertificate), os.Getenv(otlpClient), os.Getenv(otlpClientKey)
	if authority+cert+key == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authority != "" {
		text, err := os.ReadFile(authority)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", otlpCertificate, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: %s has no certificate in PEM", otlpCertificate, authority)
		}
	}
	if (cert == "") != (key == "") {
		return nil, fmt.Errorf("%s and %s are needed both, or none", otlpClient, otlpClientKey)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", otlpClient, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// begin says what is sent, and where what goes wrong is logged, when it changes.
func (r *otlpReceiver) begin(d *daemon.Daemon, hook *export.Webhook, log *slog.Logger) {
	r.Metrics = export.Registry(d.State, hook)
	r.Said = func(err error) {
		if err != nil {
			log.Warn("the OTLP receiver is not told", "error", err.Error())
		} else {
			log.Info("the OTLP receiver is told again")
		}
	}
	if len(r.Header) > 0 && inClear(r.URL) {
		log.Warn("the headers for the OTLP receiver go over the network unencrypted: take https", "url", r.URL)
	}
}

// inClear says that what is sent to a URL can be read on the way.
func inClear(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err != nil || !addr.IsLoopback()
}
