// Command bamai writes recording rules that give metrics the names that they
// had in HUATUO 2.x (huatuo_bamai_…), and the page that says which ones there
// are: deploy/prometheus-rules/huatuo-bamai-compat.yaml and
// docs/guide/huatuo2.md, both from the table in this folder.
package main

import (
	"fmt"
	"os"
)

const (
	rulesFile = "deploy/prometheus-rules/huatuo-bamai-compat.yaml"
	guideFile = "docs/guide/huatuo2.md"
)

func main() {
	for file, text := range map[string]string{rulesFile: rules(), guideFile: guide()} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "bamai:", err)
			os.Exit(1)
		}
	}
}
