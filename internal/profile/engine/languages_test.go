//go:build !noprofiler

package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// language is a program that spends three quarters of its time in one function
// and a quarter in another, how to run it, and what is known of its frames.
type language struct {
	name         string
	needs        string // a command or a variable of the environment, and what has it
	pkg          string
	build        func(t *testing.T, dir string) []string // what to run
	heavy, light string
	file         string   // where heavy stands, "" when nothing tells
	noLines      bool     // the runtime tells no lines
	inlined      string   // a function that is inlined, and has a frame all the same
	thread       string   // name of the thread that works, "" when it is not looked at
	native       bool     // the unwinder cannot name this build's functions: heavy is the interpreter's
	bare         bool     // it has no symbols: the offsets are looked at
	version      []string // prints the version
	page         page     // what docs/reference/languages.md says of it
}

// page is what the page says of a language and no test measures.
type page struct {
	supported, inlined, limits string
}

func languages() []language {
	return append(compiled(), interpreted()...)
}

// run is how to run what needs no building.
func run(args ...string) func(*testing.T, string) []string {
	return func(*testing.T, string) []string { return args }
}

// made by a compiler that takes -o.
func by(args ...string) func(*testing.T, string) []string {
	return func(t *testing.T, dir string) []string {
		out := filepath.Join(dir, "shares")
		return []string{made(t, out, append(args, "-o", out)...)}
	}
}

// compiled lists the languages that are compiled before they run.
func compiled() []language {
	return []language{
		{
			name: "C", needs: "gcc", pkg: "gcc", heavy: "heavy", light: "light", thread: "worker",
			build:   by("gcc", "-O2", "-fomit-frame-pointer", "-pthread", "testdata/shares.c"),
			version: []string{"gcc", "--version"},
			page:    page{"any compiler", "where the file or its debug file has line tables", "needs `.eh_frame`, which every distribution's build has; 145 frames deep"},
		},
		{
			name: "C, stripped", needs: "strip", pkg: "binutils", heavy: "heavy", light: "light", thread: "worker", bare: true, build: stripped,
			version: []string{"gcc", "--version"},
			page: page{"any compiler", "no", "functions that are not exported are shown as build id, offset and reason, and named later when the debug file is there; " +
				"`.gnu_debugdata`, debug files and debuginfod name them at once"},
		},
		{
			name: "C++", needs: "g++", pkg: "g++", heavy: "Work::heavy", light: "Work::light", file: "shares.cpp", inlined: "mix",
			build:   by("g++", "-O2", "-g", "-fomit-frame-pointer", "testdata/shares.cpp"),
			version: []string{"g++", "--version"},
			page:    page{"any compiler", "where the file or its debug file has line tables", "as C; names are demangled, without parameters"},
		},
		{
			name: "Rust", needs: "rustc", pkg: "rustc", heavy: "shares::Work::heavy", light: "shares::Work::light", file: "shares.rs", inlined: "shares::mix",
			build:   by("rustc", "-O", "-g", "-Cforce-frame-pointers=no", "testdata/shares.rs"),
			version: []string{"rustc", "--version"},
			page:    page{"any compiler", "where the file or its debug file has line tables", "as C; an `async` function shows the executor that polls it, not the code that awaits it"},
		},
		{
			name: "Go", needs: "go", pkg: "Go", heavy: "main.heavy", light: "main.light", file: "main.go", build: golang,
			version: []string{"go", "version"},
			page:    page{"1.13 to 1.27, `-s -w` too", "no", "an inlined function is in its caller's frame, with its own file and line; the caller of a function without a frame of its own, a small leaf, is missing; waits of goroutines are not waits of threads"},
		},
		{
			name: "Java", needs: "javac", pkg: "default-jdk-headless", heavy: "heavy", light: "light", file: "Shares.java", thread: "worker", build: java,
			version: []string{"java", "--version"},
			page:    page{"HotSpot of JDK 7 and later", "yes", "the innermost ones only where they have a safepoint; 229 frames deep; code of Graal's native images is native code"},
		},
		{
			name: ".NET", needs: "HUATUO_DOTNET", pkg: "a runtime", heavy: "Shares.Heavy", light: "Shares.Light", file: "shares.dll", noLines: true, build: dotnet,
			version: []string{"sh", "-c", "basename $HUATUO_DOTNET"},
			page: page{"6 to 10", "no", "the assembly instead of file and line; the runtime must lie in a directory named by its version, as that of distributions " +
				"and containers does (a self-contained program's does not); a process that maps an assembly of less than 4 KiB is not unwound; no ahead-of-time builds"},
		},
	}
}

// interpreted lists the languages whose programs run as they are.
func interpreted() []language {
	return []language{
		{
			name: "Python", needs: "/usr/bin/python3", pkg: "python3", heavy: "heavy", light: "light", file: "shares.py", build: run("/usr/bin/python3", "testdata/shares.py"),
			version: []string{"/usr/bin/python3", "--version"},
			page:    page{"CPython 3.6 to 3.14 (tried by hand too: 3.6.15, 3.8.18, 3.9.18, 3.12.1, 3.13.0)", "none are", "known by its file's name (`python3.N`, `libpython3.N.so`): a renamed interpreter has native frames only; some 400 frames deep"},
		},
		{
			name: "Node", needs: "node", pkg: "nodejs", heavy: "heavy", light: "light", file: "shares.js", build: run("node", "testdata/shares.js"),
			version: []string{"node", "--version"},
			page: page{"V8 8.1 and later: Node 14", "no", "a function that V8 has inlined is in its caller's frame; code after an `await` has no caller; no lines of Node's own modules; " +
				"known by its file's name (`node`, `libnode.so`)"},
		},
		{
			name: "PHP", needs: "php", pkg: "php-cli", heavy: "heavy", light: "light", file: "shares.php", build: run("php", "testdata/shares.php"),
			version: []string{"php", "--version"},
			page:    page{"7.3 to 8.5", "none are", "known by its file's name (`php`, `php-fpm`, `php-cgi`, `libphp.so`)"},
		},
		{
			name: "Perl", needs: "/usr/bin/perl", pkg: "perl", heavy: "Work::heavy", light: "Work::light", file: "shares.pl", build: run("/usr/bin/perl", "testdata/shares.pl"),
			version: []string{"perl", "-e", "print 'perl ', substr($^V, 1)"},
			page:    page{"5.28 to 5.42", "none are", "an anonymous sub is called `main::__ANON__`; known by its file's name (`perl`, `libperl.so`)"},
		},
		{
			name: "Ruby, stripped", needs: "ruby", pkg: "ruby", heavy: "rb_vm_exec", light: "rb_vm_exec", file: "shares.rb", native: true, build: run("ruby", "testdata/shares.rb"),
			version: []string{"ruby", "--version"},
			page: page{"none", "none are", "**fails**: the unwinder finds the running thread by the symbol `ruby_current_ec`, which is only in `.symtab`, and Debian strips that. " +
				"What is seen is the interpreter's own stack, whole, with the functions that libruby exports"},
		},
		{
			name: "Ruby", needs: "HUATUO_RUBY", pkg: "a Ruby with its symbols", heavy: "heavy", light: "light", file: "shares.rb",
			build: run(os.Getenv("HUATUO_RUBY"), "--disable-gems", "testdata/shares.rb"), version: []string{"sh", "-c", "$HUATUO_RUBY --disable-gems --version"},
			page: page{"2.5 to 4.0 with `.symtab`", "none are", "not tried with YJIT; names have no class before 3.4; known by its file's name (`ruby`, `libruby.so.N.N.N`), as builds from source have it"},
		},
	}
}

// stripped compiles the program in C and takes its symbols. The one that has
// them lies beside it.
func stripped(t *testing.T, dir string) []string {
	args := by("gcc", "-O2", "-fomit-frame-pointer", "-pthread", "-Wl,--build-id", "testdata/shares.c")(t, dir)
	out := filepath.Join(dir, "bare")
	return []string{made(t, out, "strip", "-o", out, args[0])}
}

func golang(t *testing.T, dir string) []string {
	src, err := os.ReadFile("testdata/shares.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	main, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "shares")
	if err := os.WriteFile(main, src, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{made(t, out, "go", "build", "-ldflags=-s -w", "-o", out, main)}
}

// java keeps heavy and light out of their caller: where code that is inlined has
// no safepoint, HotSpot knows the caller alone.
func java(t *testing.T, dir string) []string {
	made(t, filepath.Join(dir, "Shares.class"), "javac", "-d", dir, "testdata/Shares.java")
	return []string{"java", "-XX:CompileCommand=quiet", "-XX:CompileCommand=dontinline,Shares::heavy", "-XX:CompileCommand=dontinline,Shares::light", "-cp", dir, "Shares"}
}

// dotnet compiles for the runtime in HUATUO_DOTNET, and a host for it: the
// package that has the runtime has no program to start others.
func dotnet(t *testing.T, dir string) []string {
	runtime := os.Getenv("HUATUO_DOTNET")
	// The unwinder reads no assembly of less than 4 KiB; those of compilers for .NET have more.
	pad, dll, host := filepath.Join(dir, "pad"), filepath.Join(dir, "shares.dll"), filepath.Join(dir, "host")
	if err := os.WriteFile(pad, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	made(t, dll, "mcs", "-nostdlib", "-optimize+", "-r:"+runtime+"/System.Private.CoreLib.dll", "-resource:"+pad, "-out:"+dll, "testdata/shares.cs")
	return []string{made(t, host, "gcc", "-O2", "-o", host, "testdata/dotnethost.c"), runtime, dll}
}

// made runs a compiler and returns what it should have made.
func made(t *testing.T, out string, args ...string) string {
	t.Helper()
	if b, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, b)
	}
	return out
}
