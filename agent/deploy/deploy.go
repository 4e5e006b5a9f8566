// Package deploy has what is set up around the agent, elsewhere: a board for
// Grafana and alert rules for Prometheus. The tests hold them to the metrics
// that the agent has, and promtool plays the rules.
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
