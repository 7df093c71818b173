package config

import "time"

// Profiles configures continuous profiling.
type Profiles struct {
	Enabled         bool          `yaml:"enabled" flag:"profiles" help:"Take stacks all the time and keep them in the store. \u0060huatuo profile\u0060 takes them for a while without it."`
	Engine          string        `yaml:"engine" enum:"auto,unwinder,frame_pointers" help:"How stacks are walked. unwinder: by the tables that compilers leave for exceptions, and by what is known of interpreters. frame_pointers: by those alone, which needs little memory and works on old kernels, and sees neither callers of code that keeps none nor waits. auto: by the unwinder, and by frame pointers where it cannot run or has no memory left."`
	CPUHertz        int           `yaml:"cpu_hertz" min:"1" max:"199" reload:"true" help:"Samples of each CPU per second. A number that is no divisor of the timers of programs (19, 49, 97) sees them evenly."`
	Retention       time.Duration `yaml:"retention" min:"1h" help:"Age at which samples of profiles are deleted; their sums by the hour stay."`
	MaxSize         int64         `yaml:"max_size" unit:"bytes" min:"16MiB" help:"Size above which the oldest samples are deleted."`
	HourlyRetention time.Duration `yaml:"hourly_retention" min:"1h" help:"Age at which the sums of the hours, by stack and labels but without process ids, and captures are deleted."`
	HourlyMaxSize   int64         `yaml:"hourly_max_size" unit:"bytes" min:"16MiB" help:"Size above which the oldest sums are deleted."`
	MaxMemory       int64         `yaml:"max_memory" unit:"bytes" min:"32MiB" reload:"true" help:"Memory that taking stacks may have: the BPF maps of the unwinder, and what the agent grows by. Above it the unwinder is started anew with a sixteenth of the tables, and when that is not enough, stacks are taken by frame pointers, which needs no tables; an hour later it is tried again."`
	Include         []string      `yaml:"include" check:"profiles" reload:"true" example:"[\"namespace=prod & process=java*\"]" help:"Take stacks of these only, as label=pattern with & between several that must all hold; * stands for any characters. The labels are namespace, pod, container, unit, process and thread. Empty: of everything."`
	Exclude         []string      `yaml:"exclude" check:"profiles" reload:"true" help:"Take no stacks of these, in the same form. They are walked in the kernel all the same, and dropped before they are named."`
	Types           []string      `yaml:"types" enum:"cpu,offcpu.blocked,offcpu.runqueue,offcpu.io,offcpu.idle,lock.user,lock.user.contentions,lock.kernel,lock.kernel.contentions,io.file,io.file.bytes,io.block,io.block.bytes,mem.fault,mem.virtual,mem.inuse,hw.cycles,hw.instructions,hw.llc_misses,hw.dtlb_misses" reload:"true" help:"What stacks are taken of; \u0060huatuo profile --help\u0060 tells what each is."`
	Runtimes        bool          `yaml:"runtimes" reload:"true" help:"Let processes be asked for the profiles that their own language runtimes keep, when somebody wants them: Go programs at their net/http/pprof, HotSpot JVMs by their attach socket. false: nobody is asked."`
	Rate            int           `yaml:"rate" min:"1" max:"1000" reload:"true" help:"Stacks that each CPU takes per second at most, of each type but cpu. What is left out is counted, with the time or memory that it stands for."`
	Wait            time.Duration `yaml:"wait" min:"100us" max:"10s" reload:"true" help:"Waits of this length are all taken, as far as the rate allows; of shorter ones a part that stands for the rest."`
	LeastLock       time.Duration `yaml:"least_lock" min:"1us" max:"10s" reload:"true" help:"Shorter waits for locks are left out."`
	LeastIO         time.Duration `yaml:"least_io" min:"1us" max:"10s" reload:"true" help:"Shorter operations on files and disks are left out."`
	// One in a thousand and not in fewer: a compiler makes 100,000 faults a second.
	FaultEvery int `yaml:"fault_every" min:"1" max:"1000000" reload:"true" help:"One of so many page faults is taken, for all of them."`
}

func defaultProfiles() Profiles {
	return Profiles{
		Enabled: true, Engine: "auto", CPUHertz: 19,
		// A busy host of two CPUs has some 60 MB of samples a day, and 5 MB of sums
		// (BenchmarkDay of internal/store/profiles).
		Retention: 7 * 24 * time.Hour, MaxSize: 512 << 20,
		HourlyRetention: 90 * 24 * time.Hour, HourlyMaxSize: 256 << 20,
		// A host of two CPUs has 50 MiB, one with a hundred large programs twice
		// that; with the rest of the agent it stays below budget.memory.
		MaxMemory: 160 << 20,
		Types: []string{
			"cpu", "offcpu.blocked", "offcpu.runqueue", "offcpu.io", "lock.user", "lock.user.contentions", "lock.kernel", "lock.kernel.contentions",
			"io.file", "io.file.bytes", "io.block", "io.block.bytes", "mem.fault",
		},
		Runtimes: true,
		// 50 a second and CPU, at 40 µs each, are 0.2 % of it.
		Rate: 50,
		Wait: 20 * time.Millisecond, LeastLock: 10 * time.Microsecond, LeastIO: 500 * time.Microsecond,
		FaultEvery: 1000,
	}
}
