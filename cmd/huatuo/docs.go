package main

import (
	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/docgen"
	"huatuo/internal/probes"
)

// docs renders docs/reference.
func docs(root *cobra.Command) (map[string][]byte, error) {
	api, err := console.OpenAPI()
	if err != nil {
		return nil, err
	}
	specs := probes.All()
	in := docgen.In{Probes: specs, Agent: app.SelfSchemas(), Sample: config.Sample(specs), Command: root, OpenAPI: api}
	for _, e := range config.Reference(specs) {
		in.Options = append(in.Options, docgen.Option(e))
	}
	return docgen.Files(in)
}
