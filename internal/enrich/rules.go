package enrich

import (
	"regexp"
	"slices"
	"strings"
)

// rules say what a secret looks like on a command line.
type rules struct {
	flags    []flagRule
	programs map[string]bool // names after which other flag rules hold
	words    map[string]bool // arguments without dashes whose next one is a secret
	inline   []inlineRule
}

// flagRule is a flag that means a secret to some programs only.
type flagRule struct {
	programs []string
	flag     string
	attached bool   // the value may follow at once: -pSECRET
	separate bool   // the value may be the next argument
	within   string // what of the value is not secret: up to this separator; empty for nothing
	after    string // only after this argument: docker login -p, but docker run -p
}

func newRules() rules {
	mysql := []string{"mysql", "mysqldump", "mysqladmin", "mysqlshow", "mysqlimport", "mysqlcheck", "mysqlslap",
		"mysqlbinlog", "mysqlpump", "mysqlsh", "mariadb", "mariadb-dump", "mariadb-admin", "mariadb-show",
		"mariadb-import", "mariadb-check", "mariadb-backup", "mariabackup", "xtrabackup", "mydumper", "myloader"}
	mongo := []string{"mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat", "mongotop"}
	ldap := []string{"ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldappasswd", "ldapcompare"}
	snmp := []string{"snmpget", "snmpwalk", "snmpset", "snmpbulkwalk", "snmpbulkget", "snmpgetnext", "snmptable", "snmptrap"}
	smb := []string{"smbclient", "rpcclient", "smbget", "smbcacls", "smbtree", "net"}
	login := []string{"docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oc", "crane", "az", "oras"}
	r := rules{
		flags: []flagRule{
			{programs: mysql, flag: "-p", attached: true},
			{programs: mongo, flag: "-p", attached: true, separate: true},
			{programs: ldap, flag: "-w", attached: true, separate: true},
			{programs: snmp, flag: "-c", attached: true, separate: true},
			{programs: snmp, flag: "-A", attached: true, separate: true},
			{programs: snmp, flag: "-X", attached: true, separate: true},
			{programs: smb, flag: "-U", attached: true, separate: true, within: "%"},
			{programs: login, flag: "-p", separate: true, after: "login"},
			{programs: []string{"sshpass"}, flag: "-p", attached: true, separate: true},
			{programs: []string{"redis-cli"}, flag: "-a", separate: true},
			{programs: []string{"curl"}, flag: "-u", attached: true, separate: true, within: ":"},
			{programs: []string{"curl"}, flag: "-U", attached: true, separate: true, within: ":"},
			{programs: []string{"curl"}, flag: "-E", separate: true, within: ":"},
			{programs: []string{"curl", "etcdctl"}, flag: "--user", separate: true, within: ":"},
			{programs: []string{"curl"}, flag: "--proxy-user", separate: true, within: ":"},
			{programs: []string{"curl"}, flag: "--cert", separate: true, within: ":"},
			{programs: []string{"lftp"}, flag: "-u", separate: true, within: ","},
			{programs: []string{"sqlcmd", "bcp", "ipmitool", "zip", "unzip", "tsql"}, flag: "-P", attached: true, separate: true},
			{programs: []string{"7z", "7za", "7zr", "rar", "unrar"}, flag: "-p", attached: true},
			{programs: []string{"xfreerdp", "xfreerdp3", "wlfreerdp"}, flag: "/p:", attached: true},
			{programs: []string{"openssl"}, flag: "-k", separate: true},
			{programs: []string{"openssl"}, flag: "-K", separate: true},
			{programs: []string{"sqlplus", "rman", "exp", "imp", "expdp", "impdp", "sqlldr"}, attached: true, within: "/"},
		},
		words: map[string]bool{
			"bearer": true, "aws_secret_access_key": true, "aws_session_token": true, "requirepass": true, "masterauth": true,
		},
		inline: inlineRules(),
	}
	// These end the reach of the program before: sshpass -p x ssh -p 22.
	r.programs = map[string]bool{"ssh": true, "scp": true, "sftp": true, "rsync": true}
	for _, f := range r.flags {
		for _, p := range f.programs {
			r.programs[p] = true
		}
	}
	return r
}

// inlineRule is a secret that is recognised wherever it stands. The groups of
// re are what is masked. It is only tried where the argument, in lower case, has
// one of need: expressions are slow, and nearly no argument has a secret.
type inlineRule struct {
	need []string
	re   *regexp.Regexp
}

func inlineRules() []inlineRule {
	rule := func(re string, need ...string) inlineRule { return inlineRule{need, regexp.MustCompile(re)} }
	return []inlineRule{
		// scheme://user:password@host, up to the last @ of the authority.
		rule(`[A-Za-z][A-Za-z0-9+.\-]*://[^\s/?#:@'"]*:([^\s/?#'"]+)@`, "://"),
		// user:password@tcp(host:port)/db, the form of Go's SQL drivers.
		rule(`\b[\w.\-]+:([^\s'"]+)@(?:tcp|udp|unix)\(`, "@tcp(", "@udp(", "@unix("),
		// user:password@host:port, of a proxy.
		rule(`(?:^|[\s='"])[\w.\-]+:([^\s:@/'"]+)@[\w.\-]+:\d+\b`, "@"),
		// HTTP headers, to the end or to the closing quote.
		rule(`(?i)\b(?:(?:proxy-)?authorization|(?:set-)?cookie|private-token|x-[a-z\-]*(?:key|token|auth|secret)[a-z\-]*)["']?\s*[:=]\s*["']?([^'"\r\n]+)`,
			"authorization", "cookie", "private-token", "x-"),
		rule(`(?i)\bbearer\s+([A-Za-z0-9+/=._~\-]{6,})`, "bearer"),
		// Tokens that say what they are: AWS, GitHub, GitLab, Slack, Google,
		// npm, Vault, SendGrid, model providers, JSON web tokens, keys.
		rule(`\b(A(?:KIA|SIA|ROA|IDA)[0-9A-Z]{16})\b`, "akia", "asia", "aroa", "aida"),
		rule(`\b(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w\-]{15,}|xox[abeprs]-[\w\-]{10,})`,
			"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
		rule(`\b(AIza[\w\-]{35}|npm_[A-Za-z0-9]{30,}|hv[sb]\.[\w\-]{20,}|SG\.[\w\-]{16,}\.[\w\-]{16,}|sk-[\w\-]{20,})`,
			"aiza", "npm_", "hvs.", "hvb.", "sg.", "sk-"),
		rule(`\b(eyJ[\w\-]{5,}\.[\w\-]{5,}\.[\w\-]*)`, "eyj"),
		rule(`-----BEGIN [A-Z ]*PRIVATE KEY-----([^-]*)`, "private key"),
	}
}

// apply tells what f makes of an argument of a program.
func (f *flagRule) apply(arg, prog string, seen map[string]bool) (out string, next func(string) string, ok bool) {
	if !slices.Contains(f.programs, prog) || (f.after != "" && !seen[f.after]) {
		return "", nil, false
	}
	hide := maskQuoted
	if f.within != "" {
		hide = maskAfter(f.within)
	}
	switch rest, found := strings.CutPrefix(arg, f.flag); {
	case !found:
		return "", nil, false
	case rest == "" && f.separate:
		return arg, hide, true
	case rest == "" || !f.attached, f.flag == "" && strings.HasPrefix(arg, "-"):
		return "", nil, false
	case f.flag == "-p" && strings.HasPrefix(rest, "ort"):
		return "", nil, false // -port in the place of --port
	default:
		return f.flag + hide(rest), nil, true
	}
}

// secret tells whether a flag, variable or key of that name holds a secret.
func (r *rules) secret(name string) bool {
	if len(name) > 128 {
		return false // a sentence
	}
	n := strings.Map(func(c rune) rune {
		switch {
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		case c == '-', c == '_', c == '.', c == ':':
			return -1
		}
		return c
	}, name)
	switch n {
	case "pwd", "oldpwd", "bypass", "compass", "":
		return false
	case "cookie", "setcookie", "masterauth": // of HTTP, Erlang, Redis
		return true
	}
	// What is about a secret and none: --password-file, TOKEN_TTL, nopasswd.
	for _, suffix := range [...]string{"file", "path", "dir", "name", "type", "ttl", "policy", "length", "len", "url", "uri",
		"endpoint", "count", "timeout", "enabled", "prompt", "keyid", "size", "limit", "expiry", "interval", "version",
		"mode", "format", "provider", "helper", "audience", "issuer", "ring", "tokens", "tokenizer", "hashalgorithm"} {
		if strings.HasSuffix(n, suffix) && n != "connectionstring" {
			return false
		}
	}
	if strings.HasPrefix(n, "nopass") {
		return false
	}
	for _, part := range [...]string{"password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "accesskey",
		"privatekey", "encryptionkey", "accountkey", "authkey", "licensekey", "signingkey", "masterkey", "sharedkey",
		"credential", "connectionstring", "signature", "pwd"} {
		if strings.Contains(n, part) {
			return !strings.Contains(n, "tokeniz")
		}
	}
	for _, suffix := range [...]string{"pass", "passin", "passout"} {
		if strings.HasSuffix(n, suffix) {
			return true
		}
	}
	return false
}
