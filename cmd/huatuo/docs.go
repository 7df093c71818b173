package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/docgen"
	"huatuo/internal/probes"
)

// docs renders docs/reference; dir is where it lies, for the examples lie in the
// sources beside it.
func docs(root *cobra.Command, dir string) (map[string][]byte, error) {
	api, err := console.OpenAPI()
	if err != nil {
		return nil, err
	}
	specs := probes.All()
	examples, err := docgen.Examples(os.DirFS(filepath.Join(dir, "../../internal/probes")), specs)
	if err != nil {
		return nil, err
	}
	in := docgen.In{Probes: specs, Agent: app.SelfSchemas(), Sample: config.Sample(specs), Command: root, OpenAPI: api, Examples: examples}
	in.Pages = []docgen.Page{{File: "known.md", Title: "Known issues", Text: knownPage()}, {File: "checkup.md", Title: "Checkup", Text: checkupPage()}}
	for _, e := range config.Reference(specs) {
		in.Options = append(in.Options, docgen.Option(e))
	}
	return docgen.Files(in)
}
