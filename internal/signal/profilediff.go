package signal

import "time"

// ProfileDiff is what changed between two flame graphs of one type.
type ProfileDiff struct {
	Type   string      `json:"type"`
	Unit   string      `json:"unit"`
	Before ProfileSide `json:"before"`
	After  ProfileSide `json:"after"`

	Absolute bool `json:"absolute,omitempty" doc:"functions are ranked and tested by values, not by shares"`

	Functions []FunctionChange `json:"functions" doc:"those with enough samples, by how much larger their share became; clear changes first"`
	Tested    int              `json:"tested" doc:"how many functions had enough samples"`
	Clear     int              `json:"clear" doc:"how many of their changes are not by chance"`

	Frames  []Frame    `json:"frames"`
	Nodes   []DiffNode `json:"nodes" doc:"the tree of both; parents stand before their children"`
	Dropped int        `json:"dropped_nodes,omitempty" doc:"nodes that were too small to be sent"`
}

// ProfileSide is one of the two.
type ProfileSide struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Total   int64     `json:"total"`
	Samples int64     `json:"samples"`

	Truncated int64 `json:"truncated,omitempty" doc:"value of stacks whose outer frames are missing"`
}

// FunctionChange is how the share of a function changed.
type FunctionChange struct {
	Function string      `json:"function"`
	Module   string      `json:"module,omitempty"`
	File     string      `json:"file,omitempty"`
	Verdict  string      `json:"verdict" enum:"regressed,improved,unclear,untested" doc:"regressed and improved: of the share that was asked for, not by chance; untested: too few samples to tell"`
	Self     ShareChange `json:"self" doc:"of samples that end in the function"`
	Total    ShareChange `json:"total" doc:"of samples through the function"`
}

// ShareChange compares two shares.
type ShareChange struct {
	Before        float64 `json:"before" doc:"share, 0 to 1"`
	After         float64 `json:"after" doc:"share, 0 to 1"`
	BeforeValue   int64   `json:"before_value"`
	AfterValue    int64   `json:"after_value"`
	BeforeSamples int64   `json:"before_samples"`
	AfterSamples  int64   `json:"after_samples"`
	Z             float64 `json:"z" doc:"two-proportion z-test: standard errors between the shares, above 0 when it grew"`
	P             float64 `json:"p" doc:"probability of such a difference by chance, of this function alone"`
}

// DiffNode is one node of the tree of both graphs.
type DiffNode struct {
	Frame       int   `json:"f"` // index of ProfileDiff.Frames
	Parent      int   `json:"p"` // index of the node that it was called from; -1 for a root
	SelfBefore  int64 `json:"sb"`
	TotalBefore int64 `json:"tb"`
	Self        int64 `json:"s"`
	Total       int64 `json:"t"`
}
