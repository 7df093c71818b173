package enrich

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	r, err := NewRedactor([]string{`^--pin=(\d+)$`, `zzz\d+`})
	if err != nil {
		t.Fatal(err)
	}
	// Arguments are joined with '|' here; want is joined with blanks.
	for _, tt := range []struct{ args, want string }{
		// Nothing secret.
		{"sleep|10", "sleep 10"},
		{"", ""},
		{"nginx: worker process", "nginx: worker process"},
		{"postgres: checkpointer ", "postgres: checkpointer "},
		{"/usr/bin/java|-Xmx2g|-Dfile.encoding=UTF-8|-jar|app.jar", "/usr/bin/java -Xmx2g -Dfile.encoding=UTF-8 -jar app.jar"},
		{"docker|run|-p|8080:80|--user|1000:1000|nginx:1.27", "docker run -p 8080:80 --user 1000:1000 nginx:1.27"},
		{"ssh|-p|22|host", "ssh -p 22 host"},
		{"mkdir|-p|/var/lib/x", "mkdir -p /var/lib/x"},
		{"vllm|serve|--max-tokens|4096|--tokenizer|gpt2|--tokenizer-mode=auto", "vllm serve --max-tokens 4096 --tokenizer gpt2 --tokenizer-mode=auto"},
		{"kubelet|--tls-private-key-file=/k.pem|--token-ttl=1h", "kubelet --tls-private-key-file=/k.pem --token-ttl=1h"},
		{"app|--password-file|/run/pw|--secret-name=db", "app --password-file /run/pw --secret-name=db"},
		{"env|PWD=/home/x|OLDPWD=/", "env PWD=/home/x OLDPWD=/"},
		{"curl|https://host:8443/path?x=1", "curl https://host:8443/path?x=1"},
		{"npm|install|http://registry:4873/@scope/pkg", "npm install http://registry:4873/@scope/pkg"},
		{"docker|pull|nginx:1.2@sha256:abcdef", "docker pull nginx:1.2@sha256:abcdef"},
		{"scp|user@host:/a/b|c", "scp user@host:/a/b c"},
		{"mysql|-uroot|-port=3306|-h|db", "mysql -uroot -port=3306 -h db"},
		{"psql|--no-password|-h|db", "psql --no-password -h db"},
		{"sh|-c|echo don't stop", "sh -c echo don't stop"},

		// Flags.
		{"app|--password=hunter2", "app --password=***"},
		{"app|--password|hunter2|-v", "app --password *** -v"},
		{"app|-password|hunter2", "app -password ***"},
		{"app|--password|--verbose", "app --password --verbose"},
		{"app|--password|-", "app --password ***"},
		{"app|--db-passwd=a=b,c&d;e", "app --db-passwd=***"},
		{"app|--password=my secret words", "app --password=***"},
		{"app|--password=", "app --password="},
		{"app|--token", "app --token"},
		{"app|--api-key|k|--api_key=k|--apiKey=k|--APIKEY=k", "app --api-key *** --api_key=*** --apiKey=*** --APIKEY=***"},
		{"app|--auth.token=x|--client-secret|y|--secret-id|z", "app --auth.token=*** --client-secret *** --secret-id ***"},
		{"java|-Dspring.datasource.password=x|-Djavax.net.ssl.keyStorePassword=y", "java -Dspring.datasource.password=*** -Djavax.net.ssl.keyStorePassword=***"},
		{"keytool|-storepass|changeit|-keypass|k", "keytool -storepass *** -keypass ***"},
		{"openssl|rsa|-passin|pass:x|-k|y", "openssl rsa -passin *** -k ***"},
		{"redis-server|--requirepass|x|--masterauth|y", "redis-server --requirepass *** --masterauth ***"},
		{"helm|install|--set|auth.rootPassword=x,replicas=1", "helm install --set auth.rootPassword=***"},
		{"docker|run|-e|MYSQL_ROOT_PASSWORD=x|-eTOKEN=y|mysql", "docker run -e MYSQL_ROOT_PASSWORD=*** -eTOKEN=*** mysql"},
		{"app|--http-auth|user:pw|--basic-auth=user:pw", "app --http-auth user:*** --basic-auth=user:***"},
		{"beam.smp|-setcookie|ABCDEF|-name|rabbit@host", "beam.smp -setcookie *** -name rabbit@host"},
		{"aws|configure|set|aws_secret_access_key|abc", "aws configure set aws_secret_access_key ***"},

		// Variables, pairs, DSNs.
		{"env|PGPASSWORD=x|AWS_SECRET_ACCESS_KEY=y|AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE|psql", "env PGPASSWORD=*** AWS_SECRET_ACCESS_KEY=*** AWS_ACCESS_KEY_ID=*** psql"},
		{"app|host=db user=u password=x sslmode=off", "app host=db user=u password=*** sslmode=off"},
		{"app|Server=db;User Id=u;Password=x;Encrypt=1", "app Server=db;User Id=u;Password=***;Encrypt=1"},
		{`app|{"user":"u","password":"a,b","port":5}`, `app {"user":"u","password":"***","port":5}`},
		{`app|{"token": "abc", "n": 1}`, `app {"token": "***", "n": 1}`},
		{"mount|-o|user=u,password=x,rw", "mount -o user=u,password=***"},
		{"app|password: x", "app password: ***"},

		// URLs.
		{"app|postgres://u:p@db:5432/x?sslmode=off", "app postgres://u:***@db:5432/x?sslmode=off"},
		{"app|--uri=mongodb+srv://u:p@ss@h/", "app --uri=mongodb+srv://u:***@h/"},
		{"app|redis://:pw@h:6379/0", "app redis://:***@h:6379/0"},
		{"app|root:pw@tcp(127.0.0.1:3306)/db", "app root:***@tcp(127.0.0.1:3306)/db"},
		{"app|root:p@w:x@tcp(db)/x", "app root:***@tcp(db)/x"},
		{"curl|-x|u:p@proxy:3128|http://h", "curl -x u:***@proxy:3128 http://h"},
		{"curl|https://h/?a=1&token=abc&b=2", "curl https://h/?a=1&token=***&b=2"},
		{"curl|https://h/?X-Amz-Signature=abc&sig=1", "curl https://h/?X-Amz-Signature=***&sig=1"},

		// Headers and tokens.
		{"curl|-H|Authorization: Bearer abc.def|http://h", "curl -H Authorization: *** http://h"},
		{"curl|-H|X-Api-Key: abc", "curl -H X-Api-Key: ***"},
		{"curl|-H|Cookie: a=b; c=d", "curl -H Cookie: ***"},
		{"curl|-H|Accept: text/plain", "curl -H Accept: text/plain"},
		{"app|Bearer abcdefgh", "app Bearer ***"},
		{"app|bearer|abcdefgh", "app bearer ***"},
		{"git|clone|https://ghp_abcdefghijklmnopqrstuvwxyz0123456789@github.com/x", "git clone https://***@github.com/x"},
		{"app|xoxb-1234567890-abcdef|glpat-abcdefghijklmnopqrst", "app *** ***"},
		{"app|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "app ***"},
		{"app|AKIAIOSFODNN7EXAMPLE", "app ***"},

		// Programs with flags of their own.
		{"mysql|-uroot|-phunter2|db", "mysql -uroot -p*** db"},
		{"mysql|-uroot|-p|db", "mysql -uroot -p db"},
		{"/usr/bin/mysqldump|-phunter2", "/usr/bin/mysqldump -p***"},
		{"sudo|mysql|-phunter2", "sudo mysql -p***"},
		{"docker|exec|db|mysql|-phunter2", "docker exec db mysql -p***"},
		{"sshpass|-p|x|ssh|-p|22|h", "sshpass -p *** ssh -p 22 h"},
		{"sshpass|-px|ssh|h", "sshpass -p*** ssh h"},
		{"redis-cli|-a|x|ping", "redis-cli -a *** ping"},
		{"curl|-u|user:pw|http://h", "curl -u user:*** http://h"},
		{"curl|-uuser:pw|--user|u:p", "curl -uuser:*** --user u:***"},
		{"curl|-u|user|http://h", "curl -u user http://h"},
		{"smbclient|-U|user%pw|//h/s", "smbclient -U user%*** //h/s"},
		{"ldapsearch|-w|pw|-D|cn=x", "ldapsearch -w *** -D cn=x"},
		{"mongosh|-u|u|-p|pw", "mongosh -u u -p ***"},
		{"docker|login|-u|u|-p|pw|reg", "docker login -u u -p *** reg"},
		{"lftp|-u|u,pw|h", "lftp -u u,*** h"},
		{"7z|x|-ppw|a.7z", "7z x -p*** a.7z"},
		{"xfreerdp|/u:u|/p:pw", "xfreerdp /u:u /p:***"},
		{"sqlplus|scott/tiger@db", "sqlplus scott/***"},

		// Command lines in arguments.
		{"sh|-c|mysql -uroot -phunter2 db", "sh -c mysql -uroot -p*** db"},
		{"sh|-c|PGPASSWORD=x  psql -h db", "sh -c PGPASSWORD=***  psql -h db"},
		{"bash|-c|curl -H 'Authorization: Bearer abc' https://h", "bash -c curl -H 'Authorization: ***' https://h"},
		{`bash|-c|app --password "my secret" -v`, `bash -c app --password "***" -v`},
		{`bash|-c|app --password='my secret' -v`, `bash -c app --password='***' -v`},
		{`ssh|h|sh -c "mysql -phunter2"`, `ssh h sh -c "mysql -p***"`},
		{"sh|-c|it's app --password x", "sh -c it's app --password ***"},
		{"myapp: serving --token abc", "myapp: serving --token ***"},

		// Rules of the configuration.
		{"app|--pin=1234|zzz99y", "app --pin=*** ***y"},
	} {
		var args []string
		if tt.args != "" {
			args = strings.Split(tt.args, "|")
		}
		before := strings.Join(args, "|")
		if got := r.Cmdline(args); got != tt.want {
			t.Errorf("%q:\n got %q\nwant %q", tt.args, got, tt.want)
		}
		if strings.Join(args, "|") != before {
			t.Errorf("%q: the caller's arguments were written to", tt.args)
		}
	}
}

func TestRedactBadRule(t *testing.T) {
	if _, err := NewRedactor([]string{"("}); err == nil || !strings.Contains(err.Error(), "redaction rule") {
		t.Errorf("error %v", err)
	}
}

func TestSplitWords(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"a", "a"},
		{"  a  b ", "a|b"},
		{"a 'b c' d", "a|'b c'|d"},
		{`a "it's b" c`, `a|"it's b"|c`},
		{"it's a b", "it's|a|b"},
		{"\ta\nb", "a|b"},
	} {
		words, _ := splitWords(tt.in)
		if got := strings.Join(words, "|"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzSplitWords(f *testing.F) {
	f.Add(" a 'b c' it's ")
	f.Fuzz(func(t *testing.T, s string) {
		words, gaps := splitWords(s)
		if len(gaps) != len(words)+1 {
			t.Fatalf("%d gaps around %d words", len(gaps), len(words))
		}
		var b strings.Builder
		for i, w := range words {
			b.WriteString(gaps[i] + w)
		}
		if b.WriteString(gaps[len(words)]); b.String() != s {
			t.Errorf("%q became %q", s, b.String())
		}
	})
}

// FuzzRedact puts a secret where rules must find it, whatever stands around it.
func FuzzRedact(f *testing.F) {
	r, err := NewRedactor(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("sh|-c|x", "it's \"a")
	f.Add("mysql|-p", "")
	f.Add("curl|-H", "Authorization: Bearer")
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "S3cr3tV4lu3"
		if strings.Contains(before+after, secret) {
			t.Skip()
		}
		args := append(strings.Split(before, "|"), "--password="+secret, "postgres://u:"+secret+"@h/db", after)
		if got := r.Cmdline(args); strings.Contains(got, secret) {
			t.Errorf("%q: %q", args, got)
		}
		args = append(strings.Split(before, "|"), "--token", secret, after)
		if got := r.Cmdline(args); strings.Contains(got, secret) {
			t.Errorf("%q: %q", args, got)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	r, err := NewRedactor(nil)
	if err != nil {
		b.Fatal(err)
	}
	args := []string{"/usr/lib/jvm/java-17/bin/java", "-Xms1g", "-Xmx1g", "-Dspring.datasource.password=x",
		"-cp", "/usr/share/app/lib/*:/etc/app", "-Dlog.dir=/var/log/app", "--url=jdbc:postgresql://db:5432/x?user=u", "com.example.Main", "start"}
	b.ReportAllocs()
	for b.Loop() {
		r.Cmdline(args)
	}
}
