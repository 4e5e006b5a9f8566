package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/lifeline-go/lifeline/agent/sbom"
	"github.com/lifeline-go/lifeline/agent/show"
)

func newVersion() *cobra.Command {
	var bill bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Says which version this is, and of what it is made",
		Long: "Says which version this is and with which Go it was built. With --sbom it is the list of all modules in\n" +
			"it, as they are recorded in the program itself: a CycloneDX 1.5 document.",
		Example: "  lifeline version                              version and Go\n" +
			"  lifeline version --sbom >lifeline.sbom.json   what it is made of, as CycloneDX",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return blindError{errors.New("nothing is recorded in this program: build it with Go modules")}
			}
			return tellVersion(cmd, info, versionText(), bill)
		},
	}
	cmd.Flags().BoolVar(&bill, "sbom", false, "print a software bill of materials, CycloneDX 1.5 in JSON")
	cmd.Annotations = map[string]string{exitCodes: "0 said, 2 wrong usage, 3 it is not recorded in the program"}
	return cmd
}

func tellVersion(cmd *cobra.Command, info *debug.BuildInfo, version string, bill bool) error {
	w := cmd.OutOrStdout()
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	switch {
	case bill:
		return e.Encode(sbom.Of(info, version))
	case asJSON(cmd):
		return e.Encode(struct {
			Schema  string `json:"schema"`
			Program string `json:"program"`
			Version string `json:"version"`
			Go      string `json:"go"`
			Modules int    `json:"modules"`
		}{show.Schema, info.Path, version, info.GoVersion, len(info.Deps)})
	}
	_, err := fmt.Fprintf(w, "%s %s, built with %s from %d modules\n", info.Path, version, info.GoVersion, len(info.Deps))
	return err
}
