package profiles

import (
	"encoding/binary"
	"fmt"
	"math"
	"weak"

	"huatuo/internal/signal"
)

// frameKey is a frame in numbers of strings.
type frameKey struct {
	function, module, file, missing, build, line uint32
	offset                                       uint64
}

// nodeKey is a frame that was called from a node.
type nodeKey struct{ parent, frame uint32 }

// labelKey is a label set in numbers of strings.
type labelKey struct {
	pid, tid                                           uint32
	process, thread, namespace, pod, container, unitID uint32
}

// dictWriter gives numbers to strings, frames, nodes and label sets, and
// remembers which of them are in no chunk yet.
type dictWriter struct {
	strings *index[string]
	frames  *index[frameKey]
	nodes   *index[nodeKey]
	labels  *index[labelKey]
	// stacks are the innermost nodes of stacks. The pointers are weak: a profiler
	// that forgets a stack must not find it kept here, with all its names.
	stacks map[weak.Pointer[signal.Stack]]uint32

	written [4]int // how many of each some chunk has
}

// maxKnownStacks is at how many those that are gone are looked for.
const maxKnownStacks = 1 << 14

func newDictWriter() *dictWriter {
	return &dictWriter{
		strings: newStrings(), frames: newFrames(), nodes: newNodes(), labels: newLabels(),
		stacks: map[weak.Pointer[signal.Stack]]uint32{},
	}
}

func (w *dictWriter) str(x string) uint32 {
	if x == "" {
		return 0
	}
	id, _ := w.strings.add(x)
	return id
}

func (w *dictWriter) frame(f *signal.Frame) uint32 {
	id, _ := w.frames.add(frameKey{
		w.str(f.Function), w.str(f.Module), w.str(f.File), w.str(f.Missing), w.str(f.BuildID),
		uint32(min(max(f.Line, 0), math.MaxInt32)), f.Offset,
	})
	return id
}

// stack returns the node of the innermost frame.
func (w *dictWriter) stack(x *signal.Stack) uint32 {
	p := weak.Make(x)
	if id, ok := w.stacks[p]; ok {
		return id
	}
	node := uint32(0)
	for i := len(x.Frames) - 1; i >= 0; i-- {
		node, _ = w.nodes.add(nodeKey{node, w.frame(&x.Frames[i])})
	}
	if len(w.stacks) >= maxKnownStacks {
		for p := range w.stacks {
			if p.Value() == nil {
				delete(w.stacks, p)
			}
		}
		if len(w.stacks) > maxKnownStacks/2 { // nothing was gone: they come from elsewhere each time
			clear(w.stacks)
		}
	}
	w.stacks[p] = node
	return node
}

func (w *dictWriter) label(l *signal.ProfileLabels, tid uint32) uint32 {
	id, _ := w.labels.add(labelKey{
		l.PID, tid, w.str(l.Process), w.str(l.Thread), w.str(l.Namespace), w.str(l.Pod), w.str(l.Container), w.str(l.Unit),
	})
	return id
}

// fresh returns the payload of a chunk with what no chunk has yet, nil when
// there is nothing.
func (w *dictWriter) fresh() []byte {
	have := [4]int{w.strings.len(), w.frames.len(), w.nodes.len(), w.labels.len()}
	if have == w.written {
		return nil
	}
	return encodeDict(w.strings.keys[w.written[0]:], w.frames.keys[w.written[1]:], w.nodes.keys[w.written[2]:], w.labels.keys[w.written[3]:], w.written[2]+1)
}

// encodeDict returns a payload with entries; first is the number of the first
// node. New things refer to new things: their differences are small.
func encodeDict(strings []string, frames []frameKey, nodes []nodeKey, labels []labelKey, first int) []byte {
	out := binary.AppendUvarint(nil, uint64(len(strings)))
	for _, s := range strings {
		out = append(binary.AppendUvarint(out, uint64(len(s))), s...)
	}
	out = binary.AppendUvarint(out, uint64(len(frames)))
	for c := range frameColumns {
		prev := uint32(0)
		for i := range frames {
			v := *frames[i].columns()[c]
			out = binary.AppendVarint(out, int64(v)-int64(prev))
			prev = v
		}
	}
	for i := range frames {
		out = binary.AppendUvarint(out, frames[i].offset)
	}
	out = binary.AppendUvarint(out, uint64(len(nodes)))
	for i, n := range nodes {
		out = numbers(out, uint32(first+i)-n.parent)
	}
	prev := uint32(0)
	for _, n := range nodes {
		out = binary.AppendVarint(out, int64(n.frame)-int64(prev))
		prev = n.frame
	}
	out = binary.AppendUvarint(out, uint64(len(labels)))
	for _, l := range labels {
		out = numbers(out, l.pid, l.tid, l.process, l.thread, l.namespace, l.pod, l.container, l.unitID)
	}
	return out
}

// frameColumns are the numbers of a frame that are written one after the other
// for all frames.
const frameColumns = 6

func (f *frameKey) columns() [frameColumns]*uint32 {
	return [...]*uint32{&f.function, &f.module, &f.file, &f.missing, &f.build, &f.line}
}

// wrote notes that what fresh returned was written.
func (w *dictWriter) wrote() {
	w.written = [4]int{w.strings.len(), w.frames.len(), w.nodes.len(), w.labels.len()}
}

func numbers(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = binary.AppendUvarint(b, uint64(v))
	}
	return b
}

// dict is the dictionary of a file as far as it was read. Index 0 of each is
// nothing.
type dict struct {
	version int
	strings []string
	frames  frameTable
	nodes   []nodeKey
	labels  []labelKey
}

// frameTable is frames by column: a query reads all of them and uses few.
type frameTable struct {
	columns [frameColumns][]uint32
	offset  []uint64
}

func (t *frameTable) len() int { return len(t.offset) }

func (t *frameTable) grow(n int) {
	for c := range t.columns {
		t.columns[c] = room(t.columns[c], n)[:t.len()+n]
	}
	t.offset = room(t.offset, n)[:t.len()+n]
}

func (t *frameTable) at(id uint32) (f frameKey) {
	for c, p := range f.columns() {
		*p = t.columns[c][id]
	}
	f.offset = t.offset[id]
	return f
}

func (t *frameTable) set(id int, f frameKey) {
	for c, p := range f.columns() {
		t.columns[c][id] = *p
	}
	t.offset[id] = f.offset
}

func newDict(version int) *dict {
	d := &dict{version: version, strings: make([]string, 1), nodes: make([]nodeKey, 1), labels: make([]labelKey, 1)}
	d.frames.grow(1)
	return d
}

// labelsOf returns a label set with its names.
func (d *dict) labelsOf(id uint32) (l signal.ProfileLabels, tid uint32) {
	k := &d.labels[id]
	return signal.ProfileLabels{
		PID: k.pid, Process: d.strings[k.process], Thread: d.strings[k.thread], Namespace: d.strings[k.namespace],
		Pod: d.strings[k.pod], Container: d.strings[k.container], Unit: d.strings[k.unitID],
	}, k.tid
}

// add adds a chunk to the dictionary.
func (d *dict) add(payload []byte) error {
	r := &reader{b: payload}
	d.addStrings(r)
	if d.version == 1 {
		d.addFrames1(r)
		d.addNodes1(r)
	} else {
		d.addFrames(r)
		d.addNodes(r)
	}
	n := r.count(7, len(d.labels))
	d.labels = room(d.labels, n)
	for range n {
		l := labelKey{pid: uint32(r.uint())}
		if d.version > 1 {
			l.tid = uint32(r.uint())
		}
		l.process, l.thread, l.namespace, l.pod = d.str(r), d.str(r), d.str(r), d.str(r)
		l.container, l.unitID = d.str(r), d.str(r)
		d.labels = append(d.labels, l)
	}
	if r.bad {
		return fmt.Errorf("dictionary: %w", errDamaged)
	}
	return nil
}

func (d *dict) addFrames(r *reader) {
	first := d.frames.len()
	n := r.count(frameColumns+1, first)
	d.frames.grow(n)
	for c := range frameColumns {
		limit := int64(len(d.strings))
		if c == frameColumns-1 { // the line is no string
			limit = math.MaxInt32
		}
		fresh := d.frames.columns[c][first:]
		v := int64(0)
		for i := range fresh {
			if v += r.int(); v < 0 || v >= limit {
				r.bad = true // and nobody uses the dictionary
				return
			}
			fresh[i] = uint32(v)
		}
	}
	for i := range n {
		d.frames.offset[first+i] = r.uint()
	}
}

func (d *dict) addNodes(r *reader) {
	n := r.count(2, len(d.nodes))
	first := len(d.nodes)
	d.nodes = room(d.nodes, n)
	for i := range n {
		id := uint64(first + i)
		up := r.uint()
		if up == 0 || up > id {
			r.bad = true
			return
		}
		d.nodes = append(d.nodes, nodeKey{parent: uint32(id - up)})
	}
	frame := int64(0)
	for i := first; i < len(d.nodes); i++ {
		if frame += r.int(); frame < 0 || frame >= int64(d.frames.len()) {
			r.bad = true
			return
		}
		d.nodes[i].frame = uint32(frame)
	}
}

// addStrings reads the section of strings; they share one copy of it.
func (d *dict) addStrings(r *reader) {
	n := r.count(1, len(d.strings))
	d.strings = room(d.strings, n)
	probe := *r
	for range n {
		probe.bytes(probe.uint())
	}
	all := string(r.b[:len(r.b)-len(probe.b)])
	for at := 0; n > 0; n-- {
		before := len(r.b)
		size := r.uint()
		at += before - len(r.b)
		if r.bad || size > uint64(len(all)-at) {
			r.bad, r.b = true, nil
			return
		}
		d.strings = append(d.strings, all[at:at+int(size)])
		r.bytes(size)
		at += int(size)
	}
}

// room makes room for n more, once: most dictionaries are one chunk.
func room[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return append(make([]T, 0, max(len(s)+n, 2*len(s))), s...)
}

func (d *dict) str(r *reader) uint32 {
	id := r.uint()
	if id >= uint64(len(d.strings)) {
		r.bad = true
		return 0
	}
	return uint32(id)
}
