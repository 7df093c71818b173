package signal

// A metric about two workloads, one that something happened to and one that did
// it, has Scope Workload for the first and the fields of PeerFields for the
// second. A collector gives the cgroup ids of both (Batch.WorkloadPair), and the
// gatherer turns them into labels.
//
// The second workload has a label for each of WorkloadLabels rather than one
// that joins them, because then it can be selected by any of them, and joined:
// label_replace gives culprit_pod the name pod that all other metrics have.

// How a workload can be related to the one that a series is about: the values
// that the gatherer gives the first of PeerFields.
const (
	PeerWorkload = "workload" // another one
	PeerSelf     = "self"     // the same
	PeerOther    = "other"    // one that has no series of its own
)

// PeerFields returns the fields of a metric about two workloads: one called
// name, with the relation or one of more, and <name>_namespace, _pod,
// _container and _unit.
func PeerFields(name, help string, more ...string) []Field {
	fs := []Field{{Name: name, Help: help, Values: append([]string{PeerWorkload, PeerSelf, PeerOther}, more...)}}
	for _, l := range WorkloadLabels {
		fs = append(fs, Field{Name: name + "_" + l, Help: l + " of the other workload; empty when there is none"})
	}
	return fs
}

// NoPeer are the values of PeerFields where relation is all that there is to tell.
func NoPeer(relation string) []string { return []string{relation, "", "", "", ""} }

// WorkloadPair adds a value of a Workload metric about two workloads, whose
// fields are those of PeerFields. note is for those who read this round's samples
// (Sample.Note), and may be empty.
func (b *Batch) WorkloadPair(s *Schema, cgroup, peer uint64, v float64, note string) {
	b.Samples = append(b.Samples, Sample{Schema: s, CgroupID: cgroup, Peer: peer, Value: v, Note: note})
}
