// Package deploy has what is set up around the agent: a board for Grafana and
// alert rules for Prometheus, the unit for systemd, packages and an image. The
// tests hold board and rules to the metrics that the agent has, have promtool play
// the rules, and systemd run the unit.
package deploy

import _ "embed"

// Board is the board as Grafana imports it. It asks for its data source.
//
//go:embed lifeline.board.json
var Board []byte

// Rules are alert rules for Prometheus. They take the job of the agents to be
// named lifeline.
//
//go:embed lifeline.rules.yaml
var Rules []byte

// Unit is the unit for systemd, with the capabilities of the profile observe and
// no others.
//
//go:embed lifeline.service
var Unit string

// Act is what turns that unit into one with the profile act.
//
//go:embed act.conf
var Act string

// Policy is the policy file that is installed: it says what could be said, and
// says nothing.
//
//go:embed policy.yaml
var Policy []byte

// Containerfile is the definition of the image; its comment has the flags that it is
// run with.
//
//go:embed Containerfile
var Containerfile string

// DaemonSet runs the image on each node of a Kubernetes cluster.
//
//go:embed daemonset.yaml
var DaemonSet []byte
