package config

import (
	"fmt"
	"net/url"
)

// Symbols configures where the names of functions come from, besides the files
// that run and those that hold their debug symbols.
type Symbols struct {
	Debuginfod []string `yaml:"debuginfod" example:"[\"https://debuginfod.debian.net\"]" help:"Servers that the debug symbols of stripped programs are fetched from, the first that has them. They learn the build ids of what runs here. Empty: none, and nothing leaves the node."`
	MaxSize    int64    `yaml:"max_size" unit:"bytes" min:"16MiB" help:"Size of what was fetched, below store.dir, above which the files that were not used for longest are deleted. A file of more than a quarter of it is not fetched."`
}

func defaultSymbols() Symbols { return Symbols{MaxSize: 1 << 30} }

func (c *Config) checkSymbols() []error {
	var errs []error
	for _, s := range c.Symbols.Debuginfod {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("symbols.debuginfod (%s): %q is not an address: write https://host or http://host:port", c.Origin("symbols.debuginfod"), s))
		}
	}
	if len(c.Symbols.Debuginfod) > 0 && c.Store.Dir == "" {
		errs = append(errs, fmt.Errorf("symbols.debuginfod (%s): what is fetched is kept below store.dir: name a directory", c.Origin("symbols.debuginfod")))
	}
	return errs
}
