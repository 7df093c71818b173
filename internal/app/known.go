package app

import (
	"slices"

	"huatuo/internal/config"
	"huatuo/internal/diagnose/known"
	"huatuo/internal/signal"
)

// KnownIssues returns what is known: the built-in issues, and those of cfg.
func KnownIssues(cfg *config.Config) []known.Issue {
	all := known.Builtin()
	for _, k := range cfg.KnownIssues {
		is := known.Issue(k)
		if i := slices.IndexFunc(all, func(old known.Issue) bool { return old.Name == k.Name }); i >= 0 {
			all[i] = is
		} else {
			all = append(all, is)
		}
	}
	return all
}

// setKnown puts what cfg knows into force, also while events flow.
func (e *Engine) setKnown(cfg *config.Config) error {
	l, err := known.Compile(KnownIssues(cfg))
	if err != nil {
		return err
	}
	e.known.Store(l)
	return nil
}

// lookKnown marks an event that is an instance of something known; false: it is
// not to be reported.
func (e *Engine) lookKnown(r *signal.Record) bool { return e.known.Load().Look(r) }
