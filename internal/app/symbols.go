package app

import (
	"path/filepath"

	"huatuo/internal/config"
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// newFetcher returns what fetches debug symbols, nil when nothing is to be asked.
func newFetcher(cfg *config.Config) *symbol.Fetcher {
	return symbol.NewFetcher(symbol.Debuginfod{
		URLs: cfg.Symbols.Debuginfod, Dir: filepath.Join(cfg.Store.Dir, "symbols"),
		Bytes: cfg.Symbols.MaxSize, FileBytes: cfg.Symbols.MaxSize / 4,
	})
}

// symbols returns what names the stacks that are profiled. It shares with that of
// events what is fetched and counted, but not the cache: the one has little to
// keep, and is asked seldom.
func (e *Engine) symbols(cache, debug int64) *symbol.Resolver {
	return symbol.New(symbol.Options{
		CacheBytes: cache, DebugBytes: debug, Fetch: e.fetch, Count: e.counts,
	})
}

// again names kept frames whose symbols were found since, and returns how many.
func (e *Engine) again(frames []signal.Frame) int {
	if e == nil {
		return 0
	}
	return e.symbol.Again(frames)
}
