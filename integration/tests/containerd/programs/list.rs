//! The programs.

use super::program::Restricted::{Answers, Fails};
use super::program::{Program, locked, root, user};

/// Where a program proxies to: a file server of the request's own.
macro_rules! origin {
    ($request:literal) => {
        concat!("busybox httpd -p 127.0.0.1:8000 -h /etc; ", $request)
    };
}

/// All of them.
pub(crate) const PROGRAMS: &[Program] = &[
    // --- web servers and proxies
    Program {
        name: "nginx",
        package: "nginx",
        build: "cat >/etc/nginx/user.conf <<END
pid /tmp/pid; error_log stderr; events {}
http { access_log off; client_body_temp_path /tmp/client_body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi; server { listen 8080; root /var/www/html; } }
END",
        way: "",
        baseline: root("exec nginx -g 'daemon off;'").becomes("www-data"),
        restricted: Answers(locked("exec nginx -c /etc/nginx/user.conf -g 'daemon off;'").env("PORT=8080")),
        request: "HTTP, after a reload by SIGHUP from an exec",
        ask: "kill -HUP 1 && curl -sfI http://127.0.0.1:${PORT:-80}/",
        answer: "Server: nginx",
    },
    Program {
        name: "apache",
        package: "apache2",
        build: "ln -sf /proc/self/fd/2 /var/log/apache2/error.log",
        way: "",
        baseline: root(". /etc/apache2/envvars; mkdir -p $APACHE_RUN_DIR; exec apache2 -DFOREGROUND").becomes("www-data"),
        restricted: Fails { words: "setgid: unable to set group id", why: "no: it drops root" },
        request: "HTTP",
        ask: "curl -sfI http://127.0.0.1/",
        answer: "Server: Apache",
    },
    Program {
        name: "httpd",
        package: "apache2",
        build: r"cd /usr/local && mkdir -p apache2/bin apache2/conf apache2/logs apache2/htdocs apache2/cgi-bin
cp /usr/sbin/apache2 apache2/bin/httpd && echo works >apache2/htdocs/index.html
printf '#!/bin/sh\necho; id -un; echo cgi\n' >apache2/cgi-bin/id && chmod 755 apache2/cgi-bin/id
m=/usr/lib/apache2/modules
cat >apache2/conf/httpd.conf <<END
ServerRoot /usr/local/apache2
ServerName localhost
Listen \${PORT}
User www-data
Group www-data
LoadModule mpm_event_module $m/mod_mpm_event.so
LoadModule authz_core_module $m/mod_authz_core.so
LoadModule cgid_module $m/mod_cgid.so
LoadModule alias_module $m/mod_alias.so
DocumentRoot htdocs
ScriptAlias /cgi-bin/ /usr/local/apache2/cgi-bin/
PidFile logs/httpd.pid
ScriptSock /usr/local/apache2/logs/cgisock
ErrorLog /proc/self/fd/2
END",
        way: "a server below `/usr/local` that writes its `logs` there",
        baseline: root("exec bin/httpd -d /usr/local/apache2 -f conf/httpd.conf -DFOREGROUND").cwd("/usr/local/apache2").env("PORT=80").becomes("www-data"),
        restricted: Answers(locked("exec /usr/local/apache2/bin/httpd -d /usr/local/apache2 -f conf/httpd.conf -DFOREGROUND").env("PORT=8080").tmpfs(&["/tmp", "/usr/local/apache2/logs"])),
        request: "HTTP, a CGI program",
        ask: "curl -sf http://127.0.0.1:$PORT/cgi-bin/id",
        answer: "www-data\ncgi",
    },
    Program {
        name: "lighttpd",
        package: "lighttpd",
        build: r#"echo 'server.document-root = "/var/www/html" server.port = 8080 index-file.names = ( "index.html" )' >/etc/lighttpd/user.conf
echo works >/var/www/html/index.html"#,
        way: "",
        baseline: root("exec lighttpd -D -f /etc/lighttpd/lighttpd.conf").becomes("www-data"),
        restricted: Answers(locked("exec lighttpd -D -f /etc/lighttpd/user.conf").env("PORT=8080")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:${PORT:-80}/index.html",
        answer: "works",
    },
    Program {
        name: "caddy",
        package: "caddy",
        build: "echo ':8080
reverse_proxy 127.0.0.1:8000' >/etc/caddy/Caddyfile",
        way: "makes `/config` and `/data` itself",
        baseline: root("export XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data; caddy run --config /etc/caddy/Caddyfile; test -d /config").cwd("/srv"),
        restricted: Answers(locked("export HOME=/tmp; exec caddy run --config /etc/caddy/Caddyfile")),
        request: "HTTP, proxied",
        ask: origin!("curl -sf http://127.0.0.1:8080/debian_version"),
        answer: "13",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
        build: "cat >/etc/haproxy/user.cfg <<END
global
    maxconn 100
defaults
    mode tcp
    timeout client 5s
    timeout server 5s
    timeout connect 5s
listen web
    bind :8080
    option splice-auto
    server origin 127.0.0.1:8000
END",
        way: "master and worker",
        baseline: user("haproxy", "exec haproxy -W -db -f /etc/haproxy/user.cfg").cwd("/var/lib/haproxy").read_only(),
        restricted: Answers(locked("exec haproxy -W -db -f /etc/haproxy/user.cfg")),
        request: "HTTP, proxied by splice",
        ask: origin!("curl -sf http://127.0.0.1:8080/debian_version"),
        answer: "13",
    },
    Program {
        name: "haproxy with chroot",
        package: "haproxy",
        build: r"printf 'listen web\n    bind :8080\n    server origin 127.0.0.1:8000\n' >>/etc/haproxy/haproxy.cfg",
        way: "Debian's configuration, which has `chroot /var/lib/haproxy`",
        baseline: root("mkdir -p /run/haproxy && exec haproxy -W -db -f /etc/haproxy/haproxy.cfg").becomes("haproxy").grant(r#"capabilities.add = ["SYS_CHROOT"]"#),
        restricted: Fails { words: "annot chroot", why: "no: `chroot`" },
        request: "HTTP, proxied",
        ask: origin!("curl -sf http://127.0.0.1:8080/debian_version"),
        answer: "13",
    },
    Program {
        name: "squid",
        package: "squid",
        build: r"printf 'http_port 3128\nhttp_access allow localhost\npid_filename none\ncache_log stdio:/dev/stderr\naccess_log none\ncoredump_dir /tmp\n' >/etc/squid/user.conf",
        way: "entrypoint that chowns its folders",
        baseline: root("mkdir -p /var/log/squid /var/spool/squid; chown -R proxy:proxy /var/log/squid /var/spool/squid; exec squid -N -d1").becomes("proxy"),
        restricted: Answers(locked("exec squid -N -d1 -f /etc/squid/user.conf")),
        request: "HTTP by proxy",
        ask: origin!("curl -sf -x http://127.0.0.1:3128 http://127.0.0.1:8000/debian_version"),
        answer: "13",
    },
    Program {
        name: "varnish",
        package: "varnish",
        build: r#"printf 'vcl 4.1;\nbackend default { .host = "127.0.0.1"; .port = "8000"; }\n' >/etc/varnish/test.vcl
install -d -o varnish -g varnish /var/lib/varnish"#,
        way: "compiles its configuration with gcc, and loads that",
        baseline: user("varnish", "exec varnishd -F -f /etc/varnish/test.vcl -a :8080 -s malloc,20m"),
        restricted: Answers(
            locked("exec varnishd -F -n /tmp/varnish -f /etc/varnish/test.vcl -a :8080 -s malloc,20m")
                .grant("files.execute-from-writable = true"),
        ),
        request: "HTTP, proxied",
        ask: origin!("curl -sf http://127.0.0.1:8080/debian_version"),
        answer: "13",
    },
    Program {
        name: "stunnel",
        package: "stunnel4",
        build: r"cd /etc/stunnel
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout cert.pem -out part.pem 2>/dev/null
cat part.pem >>cert.pem && chmod 644 cert.pem
printf 'foreground = yes\npid =\n[https]\naccept = 8443\nconnect = 8000\ncert = /etc/stunnel/cert.pem\n' >stunnel.conf",
        way: "",
        baseline: root(r"printf 'setuid = stunnel4\nsetgid = stunnel4\n' | cat - /etc/stunnel/stunnel.conf >/etc/stunnel/root.conf; exec stunnel /etc/stunnel/root.conf").becomes("stunnel4"),
        restricted: Answers(locked("exec stunnel /etc/stunnel/stunnel.conf")),
        request: "HTTPS, proxied",
        ask: origin!("curl -skf https://127.0.0.1:8443/debian_version"),
        answer: "13",
    },
    Program {
        name: "tor",
        package: "tor",
        build: r"printf 'DisableNetwork 1\nControlPort 9051\nSocksPort 9050\n' >/etc/tor/torrc",
        way: "",
        baseline: root("exec tor --User debian-tor --DataDirectory /var/lib/tor").becomes("debian-tor"),
        restricted: Answers(locked("exec tor --DataDirectory /tmp/tor")),
        request: "its control port",
        ask: r"printf 'AUTHENTICATE\r\nGETINFO version\r\nQUIT\r\n' | busybox nc 127.0.0.1 9051",
        answer: "250-version=",
    },
    // --- applications
    Program {
        name: "tomcat",
        package: "tomcat10",
        build: "mkdir -p /usr/local/tomcat/webapps/ROOT /usr/local/tomcat/temp /usr/local/tomcat/logs /usr/local/tomcat/work && cd /usr/local/tomcat
cp -rL /usr/share/tomcat10/bin /usr/share/tomcat10/lib . && cp -r /usr/share/tomcat10/etc conf && cp /usr/share/java/eclipse-jdt-core.jar /usr/share/java/eclipse-jdt-core-compiler-batch.jar lib
echo '<%= 6*7 %> by <%= application.getServerInfo() %>' >webapps/ROOT/index.jsp && chmod -R a+rX .",
        way: "a server below `/usr/local` that writes to its own folders there",
        baseline: root("exec bin/catalina.sh run").cwd("/usr/local/tomcat").env("JAVA_OPTS=-Xmx128m"),
        restricted: Answers(locked("exec bin/catalina.sh run").cwd("/usr/local/tomcat").env("JAVA_OPTS=-Xmx128m").tmpfs(&["/tmp", "/usr/local/tomcat/logs", "/usr/local/tomcat/temp", "/usr/local/tomcat/work"])),
        request: "HTTP, a JSP that is compiled",
        ask: "curl -sf http://127.0.0.1:8080/",
        answer: "42 by Apache Tomcat",
    },
    Program {
        name: "java",
        package: "openjdk-21-jre-headless",
        build: "",
        way: "",
        baseline: root("exec java -Xmx128m -XX:+UseG1GC -m jdk.httpserver -p 8000 -d /etc"),
        restricted: Answers(locked("exec java -Xmx128m -XX:+UseG1GC -m jdk.httpserver -p 8000 -d /etc")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/debian_version",
        answer: "13",
    },
    Program {
        name: "node",
        package: "nodejs",
        build: r"mkdir -p /usr/src/app && cat >/usr/src/app/server.js <<'END'
const cluster = require('cluster'), crypto = require('crypto'), fs = require('fs');
if (cluster.isPrimary) { for (let i = 0; i < 2; i++) cluster.fork(); }
else require('http').createServer((q, r) => crypto.pbkdf2('a', 'b', 1000, 16, 'sha256', (e, k) => {
  fs.appendFileSync(process.env.LOG || 'requests.log', q.url + '\n');
  r.end('worker ' + cluster.worker.id + ': ' + k.length);
})).listen(8000);
END",
        way: "an application in `/usr/src/app` with two workers, which writes there",
        baseline: root("exec node server.js").cwd("/usr/src/app"),
        restricted: Answers(locked("exec node server.js").cwd("/usr/src/app").env("LOG=/tmp/log")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/ && cat ${LOG:-/usr/src/app/requests.log}",
        answer: ": 16/",
    },
    Program {
        name: "python",
        package: "python3",
        build: "",
        way: "",
        baseline: root("exec python3 -m http.server 8000").cwd("/etc"),
        restricted: Answers(locked("exec python3 -m http.server 8000").cwd("/etc")),
        request: "HTTP; in the exec `shutil.copytree`",
        ask: "curl -sf http://127.0.0.1:8000/debian_version && \
              python3 -c 'import shutil; shutil.copytree(\"/etc/python3.13\", \"/tmp/copy\", dirs_exist_ok=True)' && echo copied",
        answer: "copied",
    },
    Program {
        name: "gunicorn",
        package: "gunicorn",
        build: "mkdir -p /app && cat >/app/app.py <<'END'
import os
def app(environ, start):
    start('200 OK', [])
    return [b'worker of %d' % os.getppid()]
END",
        way: "two workers",
        baseline: user("www-data", "exec gunicorn --workers 2 --bind :8000 app:app").cwd("/app"),
        restricted: Answers(locked("exec gunicorn --workers 2 --bind :8000 app:app").cwd("/app")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/",
        answer: "worker of 1",
    },
    Program {
        name: "uwsgi",
        package: "uwsgi-core",
        build: "cat >/srv/app.py <<'END'
import uwsgi
def application(environ, start):
    start('200 OK', [])
    return [b'worker %d' % uwsgi.worker_id()]
END",
        way: "master and two workers",
        baseline: root("exec uwsgi-core --plugin python3 --http-socket :8000 --master --processes 2 --uid www-data --gid www-data --wsgi-file /srv/app.py").becomes("www-data"),
        restricted: Answers(locked("exec uwsgi-core --plugin python3 --http-socket :8000 --master --processes 2 --wsgi-file /srv/app.py")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/",
        answer: "worker ",
    },
    Program {
        name: "puma",
        package: "puma",
        build: r#"mkdir -p /usr/src/app && echo 'run ->(env) { [200, {}, ["rack ", Process.ppid.to_s]] }' >/usr/src/app/config.ru"#,
        way: "two workers",
        baseline: root("exec puma --workers 2 --bind tcp://0.0.0.0:8000").cwd("/usr/src/app"),
        restricted: Answers(locked("exec puma --workers 2 --bind tcp://0.0.0.0:8000").cwd("/usr/src/app")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/",
        answer: "rack 1",
    },
    Program {
        name: "php-fpm",
        package: "php8.4-fpm",
        build: r#"mkdir -p /var/www/html && echo '<?php echo 6*7, " by ", get_current_user(), posix_geteuid();' >/var/www/html/index.php
cd /etc/php/8.4/fpm && sed 's|^listen = .*|listen = 9000|' -i pool.d/www.conf
sed 's|^pid = .*|pid = /tmp/pid|; s|^error_log = .*|error_log = /proc/self/fd/2|; s|^include=.*|include=/etc/php/8.4/fpm/user/*.conf|' php-fpm.conf >user.conf
mkdir user && sed '/^user = /d; /^group = /d' pool.d/www.conf >user/www.conf"#,
        way: "",
        baseline: root("mkdir -p /run/php && exec php-fpm8.4 -F").cwd("/var/www/html").becomes("www-data"),
        restricted: Answers(locked("exec php-fpm8.4 -F -y /etc/php/8.4/fpm/user.conf").cwd("/var/www/html")),
        request: "FastCGI",
        ask: "SCRIPT_FILENAME=/var/www/html/index.php REQUEST_METHOD=GET cgi-fcgi -bind -connect 127.0.0.1:9000",
        answer: "42 by root33",
    },
    // --- databases and queues
    Program {
        name: "redis",
        package: "redis-server",
        build: "install -d /data && touch /data/left",
        way: "entrypoint that chowns `/data` and executes it by `setpriv`; append-only file",
        baseline: root("find . ! -user redis -exec chown redis {} + && exec setpriv --reuid redis --regid redis --clear-groups redis-server --appendonly yes").cwd("/data").becomes("redis"),
        restricted: Answers(locked("exec redis-server --dir /tmp --appendonly yes")),
        request: "SET, GET, SAVE, BGREWRITEAOF",
        ask: "redis-cli set greeting hello && redis-cli get greeting && redis-cli save && redis-cli bgrewriteaof",
        answer: "OK\nhello\nOK\nBackground append only file rewriting started",
    },
    Program {
        name: "redis with defaults",
        package: "redis-server",
        build: "",
        way: "saves to `/dump.rdb`",
        baseline: root("exec redis-server").cwd("/"),
        restricted: Answers(locked("exec redis-server").cwd("/tmp")),
        request: "SET, SAVE",
        ask: "redis-cli set greeting hello && redis-cli save",
        answer: "OK\nOK",
    },
    Program {
        name: "memcached",
        package: "memcached",
        build: "",
        way: "",
        baseline: root("exec memcached -u memcache").becomes("memcache"),
        restricted: Answers(locked("exec memcached")),
        request: "set, get",
        ask: r"printf 'set k 0 0 5\r\nhello\r\nget k\r\nquit\r\n' | busybox nc 127.0.0.1 11211",
        answer: "hello",
    },
    Program {
        name: "postgresql",
        package: "postgresql-17",
        build: "",
        way: "entrypoint that chowns its folders, runs `initdb`, and drops root by gosu",
        baseline: root("export D=/var/lib/pgdata PATH=/usr/lib/postgresql/17/bin:$PATH; mkdir -p $D /run/postgresql && chown postgres $D /run/postgresql && chmod 700 $D && \
                        gosu postgres initdb -N -D $D && exec gosu postgres postgres -D $D").becomes("postgres"),
        restricted: Answers(locked("export PATH=/usr/lib/postgresql/17/bin:$PATH; initdb -N -U postgres -D /tmp/pg && exec postgres -D /tmp/pg -k /tmp")),
        request: "SQL: a table, a sum",
        ask: "psql -h 127.0.0.1 -U postgres -Atc 'create table if not exists t as select g from generate_series(1,1000) g; select sum(g) from t' template1",
        answer: "500500",
    },
    Program {
        name: "pgbouncer",
        package: "pgbouncer",
        build: r"printf '[databases]\na = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\nunix_socket_dir =\nauth_type = any\nadmin_users = admin\n' >/etc/pgbouncer/test.ini",
        way: "",
        baseline: user("postgres", "exec pgbouncer /etc/pgbouncer/test.ini"),
        restricted: Answers(locked("exec pgbouncer /etc/pgbouncer/test.ini")),
        request: "SHOW DATABASES",
        ask: "psql -h 127.0.0.1 -p 6432 -U admin -Atc 'show databases' pgbouncer",
        answer: "a|127.0.0.1",
    },
    Program {
        name: "mariadb",
        package: "mariadb-server",
        build: "",
        way: "entrypoint that chowns its folders, and drops root by gosu",
        baseline: root("mkdir -p /run/mysqld && chown -R mysql /run/mysqld /var/lib/mysql && exec gosu mysql mariadbd").becomes("mysql"),
        restricted: Answers(locked("mkdir /tmp/db && mariadb-install-db --auth-root-authentication-method=normal --datadir=/tmp/db && \
                                    exec mariadbd --no-defaults --datadir=/tmp/db --socket=/tmp/s --pid-file=/tmp/p").env("CLIENT=--no-defaults --socket=/tmp/s -u root")),
        request: "SQL: a table of InnoDB",
        ask: "mariadb $CLIENT -Ne 'create database if not exists d; create table if not exists d.t (a int) engine=innodb; insert into d.t values (42); select a from d.t limit 1'",
        answer: "42",
    },
    Program {
        name: "etcd",
        package: "etcd-server",
        build: "",
        way: "makes `/default.etcd`",
        baseline: root("exec etcd").cwd("/"),
        restricted: Answers(locked("exec etcd --data-dir /tmp/etcd").cwd("/")),
        request: "put, get",
        ask: "etcdctl put greeting hello && etcdctl get greeting",
        answer: "OK\ngreeting\nhello",
    },
    Program {
        name: "rabbitmq",
        package: "rabbitmq-server",
        build: "",
        way: "entrypoint that chowns its folder, and drops root by gosu",
        baseline: root("chown rabbitmq /var/lib/rabbitmq && exec gosu rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server").becomes("rabbitmq"),
        restricted: Answers(locked("export HOME=/tmp RABBITMQ_MNESIA_BASE=/tmp/m RABBITMQ_LOGS=- RABBITMQ_ENABLED_PLUGINS_FILE=/tmp/p; exec /usr/lib/rabbitmq/bin/rabbitmq-server")),
        request: "AMQP's handshake",
        ask: r"printf 'AMQP\000\000\011\001' | busybox nc -w 1 127.0.0.1 5672 | grep -ao RabbitMQ",
        answer: "RabbitMQ",
    },
    Program {
        name: "nats",
        package: "nats-server",
        build: "",
        way: "",
        baseline: root("exec nats-server --jetstream").cwd("/"),
        restricted: Answers(locked("exec nats-server --jetstream --store_dir /tmp/js")),
        request: "PUB to a subscriber",
        ask: r"printf 'CONNECT {}\r\nSUB a 1\r\nPUB a 5\r\nhello\r\n' | busybox nc -w 1 127.0.0.1 4222",
        answer: "MSG a 1 5\r\nhello",
    },
    Program {
        name: "mosquitto",
        package: "mosquitto",
        build: r"install -d -o mosquitto -g mosquitto /mosquitto/data && printf 'listener 1883\nallow_anonymous true\n' >/mosquitto/user.conf
printf 'persistence true\npersistence_location /mosquitto/data/\n' | cat /mosquitto/user.conf - >/mosquitto/mosquitto.conf",
        way: "entrypoint that chowns its folder",
        baseline: root("chown -R mosquitto:mosquitto /mosquitto && exec mosquitto -c /mosquitto/mosquitto.conf").becomes("mosquitto"),
        restricted: Answers(locked("exec mosquitto -c /mosquitto/user.conf")),
        request: "publish, subscribe",
        ask: "mosquitto_pub -r -t greeting -m hello && mosquitto_sub -t greeting -C 1 -W 5",
        answer: "hello",
    },
    Program {
        name: "slapd",
        package: "slapd",
        build: "",
        way: "",
        baseline: root("mkdir -p /run/slapd && chown openldap /run/slapd && exec slapd -d 0 -h ldap:/// -u openldap -g openldap -F /etc/ldap/slapd.d").becomes("openldap"),
        restricted: Fails { words: "changing ownership of '/run/slapd'", why: "no: its entrypoint chowns" },
        request: "LDAP search",
        ask: "ldapsearch -x -LLL -H ldap://127.0.0.1 -b '' -s base namingContexts",
        answer: "namingContexts: dc=",
    },
    // --- names, time, files
    Program {
        name: "bind",
        package: "bind9",
        build: r#"cd /etc/bind && printf '@ SOA ns root 1 1 1 1 1\n@ NS ns\nns A 10.0.0.9\n' >a.test
echo 'zone a.test { type primary; file "/etc/bind/a.test"; };' >>named.conf.local
echo 'options { directory "/tmp"; pid-file none; session-keyfile none; }; controls { };' | cat - named.conf.local >user.conf"#,
        way: "",
        baseline: root("mkdir -p /run/named && chown bind /run/named && exec named -g -u bind").becomes("bind"),
        restricted: Answers(locked("exec named -g -p 5353 -c /etc/bind/user.conf").env("PORT=5353")),
        request: "DNS",
        ask: "dig +short +time=1 -p ${PORT:-53} @127.0.0.1 ns.a.test",
        answer: "10.0.0.9",
    },
    Program {
        name: "unbound",
        package: "unbound",
        build: r#"rm /etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf
printf 'server:\n  local-data: "a.test. A 10.0.0.9"\n' >/etc/unbound/unbound.conf.d/test.conf
printf 'server:\n  port: 5353\n  username: ""\n  chroot: ""\n  pidfile: ""\n  directory: ""\n  use-syslog: no\n  local-data: "a.test. A 10.0.0.9"\n' >/etc/unbound/user.conf"#,
        way: "",
        baseline: root("exec unbound -d").becomes("unbound"),
        restricted: Answers(locked("exec unbound -d -c /etc/unbound/user.conf").env("PORT=5353")),
        request: "DNS",
        ask: "dig +short +time=1 -p ${PORT:-53} @127.0.0.1 a.test",
        answer: "10.0.0.9",
    },
    Program {
        name: "nsd",
        package: "nsd",
        build: r#"printf 'zone:\n  name: a.test\n  zonefile: a.test\n' >/etc/nsd/nsd.conf.d/test.conf
printf '@ SOA ns root 1 1 1 1 1\n@ NS ns\nns A 10.0.0.9\n' >/etc/nsd/a.test
printf 'server:\n  port: 5353\n  username: ""\n  pidfile: ""\n  zonesdir: /etc/nsd\n  xfrdfile: /tmp/xfrd\n  zonelistfile: /tmp/zones\n  xfrdir: /tmp\nremote-control:\n  control-enable: no\nzone:\n  name: a.test\n  zonefile: a.test\n' >/etc/nsd/user.conf"#,
        way: "",
        baseline: root("mkdir -p /run/nsd && chown nsd /run/nsd && exec nsd -d").becomes("nsd"),
        restricted: Answers(locked("exec nsd -d -c /etc/nsd/user.conf").env("PORT=5353")),
        request: "DNS",
        ask: "dig +short +time=1 -p ${PORT:-53} @127.0.0.1 ns.a.test",
        answer: "10.0.0.9",
    },
    Program {
        name: "dnsmasq",
        package: "dnsmasq-base",
        build: "",
        way: "",
        baseline: root("exec dnsmasq -k --user=dnsmasq --no-resolv --address=/a.test/10.0.0.9").becomes("dnsmasq"),
        restricted: Answers(locked("exec dnsmasq -k --port=5353 --pid-file= --no-resolv --address=/a.test/10.0.0.9").env("PORT=5353")),
        request: "DNS",
        ask: "dig +short +time=1 -p ${PORT:-53} @127.0.0.1 a.test",
        answer: "10.0.0.9",
    },
    Program {
        name: "chrony",
        package: "chrony",
        build: r"echo 'local stratum 8' >/etc/chrony/conf.d/test.conf
printf 'local stratum 8\nport 0\ncmdport 3323\npidfile /tmp/pid\nbindcmdaddress 127.0.0.1\nbindcmdaddress /\n' >/etc/chrony/user.conf",
        way: "serves time, and does not set it (`-x`)",
        baseline: root("exec chronyd -x -d -u _chrony").becomes("_chrony"),
        restricted: Answers(locked("exec chronyd -x -d -U -u www-data -f /etc/chrony/user.conf").env("PORT=3323")),
        request: "`chronyc tracking`",
        ask: "chronyc -h 127.0.0.1 -p ${PORT:-323} tracking",
        answer: "Leap status",
    },
    Program {
        name: "coturn",
        package: "coturn",
        build: "",
        way: "",
        baseline: user("nobody", "exec turnserver -n --no-auth --listening-ip=127.0.0.1 --log-file=stdout --pidfile= --db=/tmp/db")
.read_only().tmpfs(&["/tmp"]),
restricted: Answers(locked("exec turnserver -n --no-auth --listening-ip=127.0.0.1 --log-file=stdout --pidfile= --db=/tmp/db")),
        request: "STUN",
        ask: "turnutils_stunclient 127.0.0.1",
        answer: "UDP reflexive addr: 127.0.0.1:",
    },
    Program {
        name: "rsyncd",
        package: "rsync",
        build: r"printf '[etc]\npath = /etc\n' >/etc/rsyncd.conf",
        way: "",
        baseline: root("exec rsync --daemon --no-detach"),
        restricted: Answers(locked("exec rsync --daemon --no-detach --port=8873 --config=/etc/rsyncd.conf").env("PORT=8873")),
        request: "a file",
        ask: "rsync rsync://127.0.0.1:${PORT:-873}/etc/debian_version /tmp/got && cat /tmp/got",
        answer: "13",
    },
    Program {
        name: "git-daemon",
        package: "git",
        build: "export HOME=/root; git init -q --bare -b main /srv/git/a.git && cd /srv/git/a.git
git update-ref refs/heads/main $(git -c user.name=a -c user.email=a@b commit-tree -m first $(git hash-object -t tree -w --stdin </dev/null))",
        way: "",
        baseline: user("www-data", "exec git -c safe.directory='*' daemon --export-all --base-path=/srv/git"),
        restricted: Answers(locked("exec git -c safe.directory='*' daemon --export-all --base-path=/srv/git")),
        request: "clone",
        ask: "cd /tmp && git clone git://127.0.0.1/a.git clone.$$ && git -C clone.$$ log --oneline",
        answer: "first",
    },
    Program {
        name: "svnserve",
        package: "subversion",
        build: r"svnadmin create /srv/svn && printf '[general]\nanon-access = write\n' >/srv/svn/conf/svnserve.conf && chown -R www-data /srv/svn",
        way: "",
        baseline: user("www-data", "exec svnserve -d --foreground -r /srv/svn"),
        restricted: Answers(locked("cp -r /srv/svn /tmp/svn && exec svnserve -d --foreground -r /tmp/svn")),
        request: "a commit",
        ask: "cd /tmp; export HOME=/tmp; svn mkdir --non-interactive -m first svn://127.0.0.1/folder.$$ && svn log -q svn://127.0.0.1/",
        answer: "r1 |",
    },
    // --- mail, talk, remote access
    Program {
        name: "postfix",
        package: "postfix",
        build: "postconf -e maillog_file=/dev/stdout myhostname=a.test mydestination=localhost inet_interfaces=127.0.0.1 && newaliases && useradd -m user",
        way: "Debian's configuration, which has `chroot`",
        baseline: root("exec postfix start-fg").becomes("postfix").grant(r#"capabilities.add = ["SYS_CHROOT"]"#),
        restricted: Fails { words: "unable to create missing queue directories", why: "no: it drops root, and `chroot`" },
        request: "SMTP, delivered to a mailbox",
        ask: "timeout 5 curl -sf smtp://127.0.0.1 --mail-from a@localhost --mail-rcpt user@localhost -T /etc/debian_version && cat /var/mail/user",
        answer: "13",
    },
    Program {
        name: "dovecot",
        package: "dovecot-imapd",
        build: "cat >/etc/dovecot/dovecot.conf <<END
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols = imap
first_valid_uid = 33
ssl = no
auth_allow_cleartext = yes
mail_driver = maildir
mail_path = /tmp/mail
log_path = /dev/stderr
passdb static {
  password = secret
}
userdb static {
  fields {
    uid = www-data
    gid = www-data
    home = /tmp
  }
}
END",
        way: "",
        baseline: root("exec dovecot -F").grant(r#"capabilities.add = ["SYS_CHROOT"]"#),
        restricted: Fails { words: "fchown() failed", why: "no: it drops root" },
        request: "IMAP, a login",
        ask: "curl -sf imap://user:secret@127.0.0.1/",
        answer: "INBOX",
    },
    Program {
        name: "vsftpd",
        package: "vsftpd",
        build: r"mkdir -p /srv/ftp && echo works >/srv/ftp/file
printf 'listen=YES\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nanon_root=/srv/ftp\nsecure_chroot_dir=/var/run/vsftpd/empty\n' >/etc/vsftpd.conf",
        way: "a shell starts it again when it crashes, as it does now and then under runc too",
        baseline: root("mkdir -p /var/run/vsftpd/empty && while :; do vsftpd; done").grant(r#"capabilities.add = ["SYS_CHROOT"]"#),
        restricted: Fails { words: "500 OOPS", why: "no: it drops root, and `chroot`" },
        request: "FTP, a file",
        ask: "curl -sSv ftp://127.0.0.1/file",
        answer: "works",
    },
    Program {
        name: "sshd",
        package: "openssh-server",
        build: "ssh-keygen -qN '' -f /root/key && install -d -m 700 /root/.ssh && cp /root/key.pub /root/.ssh/authorized_keys",
        way: "",
        baseline: root("mkdir -p /run/sshd && exec /usr/sbin/sshd -De").grant(r#"capabilities.add = ["SYS_CHROOT"]"#),
        restricted: Fails { words: "chroot", why: "no: it drops root, and `chroot`" },
        request: "a login with a terminal",
        ask: "ssh -tt -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/tmp/known root@127.0.0.1 'tty; id -un'",
        answer: "/dev/pts/0\r\nroot",
    },
    Program {
        name: "prosody",
        package: "prosody",
        build: "printf 'data_path = \"/tmp\"\\ndaemonize = false\\npidfile = \"/tmp/pid\"\\nlog = \"*console\"\\nmodules_disabled = { \"s2s\" }\nc2s_require_encryption = false\nallow_unencrypted_plain_auth = true\nmodules_enabled = { \"saslauth\" }\\nVirtualHost \"localhost\"\\n' >/etc/prosody/user.cfg.lua",
        way: "",
        baseline: root("mkdir -p /run/prosody && chown prosody /run/prosody && exec gosu prosody prosody -F").becomes("prosody"),
        restricted: Answers(locked("exec prosody -F --config /etc/prosody/user.cfg.lua")),
        request: "XMPP's stream",
        ask: r#"(echo "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"; sleep 1) | busybox nc 127.0.0.1 5222"#,
        answer: "<stream:features",
    },
    // --- what watches
    Program {
        name: "prometheus",
        package: "prometheus",
        build: "install -d -o nobody /prometheus",
        way: "",
        baseline: user("nobody", "exec prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/prometheus").cwd("/prometheus"),
        restricted: Answers(locked("exec prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/tmp/data")),
        request: "a query",
        ask: "curl -sf 'http://127.0.0.1:9090/api/v1/query?query=vector(42)'",
        answer: r#""42""#,
    },
    Program {
        name: "node-exporter",
        package: "prometheus-node-exporter",
        build: "",
        way: "",
        baseline: user("nobody", "exec prometheus-node-exporter").read_only(),
        restricted: Answers(locked("exec prometheus-node-exporter")),
        request: "metrics",
        ask: "curl -sf http://127.0.0.1:9100/metrics",
        answer: "node_memory_MemTotal_bytes",
    },
    Program {
        name: "monit",
        package: "monit",
        build: r"printf 'set daemon 1\nset pidfile /tmp/pid\nset statefile /tmp/state\nset idfile /tmp/id\nset httpd port 2812 allow localhost\ncheck process first matching monit\n' >/etc/monit/test && chmod 600 /etc/monit/test
install -m 600 -o www-data /etc/monit/test /etc/monit/user",
        way: "",
        baseline: root("exec monit -I -c /etc/monit/test"),
        restricted: Answers(locked("exec monit -I -c /etc/monit/user")),
        request: "its status",
        ask: "curl -sf http://127.0.0.1:2812/_status",
        answer: "Process 'first'",
    },
    Program {
        name: "rsyslog",
        package: "rsyslog",
        build: "",
        way: "makes `/dev/log`",
        baseline: root("exec rsyslogd -n"),
        restricted: Fails { words: "/var/log/syslog: No such file", why: "no: a thread with a scheduling policy (`sched_setscheduler`)" },
        request: "a message",
        ask: "logger hello && cat /var/log/syslog",
        answer: "hello",
    },
    Program {
        name: "dbus",
        package: "dbus-daemon",
        build: "cat >/etc/user-bus.conf <<END
<busconfig><listen>unix:path=/tmp/bus</listen><policy context='default'><allow send_destination='*'/><allow receive_sender='*'/><allow eavesdrop='true'/><allow own='*'/></policy></busconfig>
END",
        way: "",
        baseline: root("mkdir -p /run/dbus && exec dbus-daemon --system --nofork --nopidfile").env("BUS=unix:path=/run/dbus/system_bus_socket").becomes("messagebus"),
        restricted: Answers(locked("exec dbus-daemon --config-file=/etc/user-bus.conf --nofork --nopidfile").env("BUS=unix:path=/tmp/bus")),
        request: "ListNames",
        ask: "dbus-send --bus=$BUS --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ListNames",
        answer: "org.freedesktop.DBus",
    },
    Program {
        name: "iperf3",
        package: "iperf3",
        build: "",
        way: "",
        baseline: root("exec iperf3 -s"),
        restricted: Answers(locked("exec iperf3 -s")),
        request: "a megabyte",
        ask: "iperf3 -c 127.0.0.1 -n 1M",
        answer: "iperf Done.",
    },
    Program {
        name: "fping",
        package: "fping",
        build: "setcap cap_net_raw+ep /usr/bin/fping",
        way: "a file with the capability NET_RAW",
        baseline: root("exec fping -l -p 200 127.0.0.1").grant(r#"capabilities.add = ["NET_RAW"]"#),
        restricted: Fails { words: "can't create socket", why: "no: a raw socket" },
        request: "an echo",
        ask: "fping 127.0.0.1",
        answer: "127.0.0.1 is alive",
    },
    // --- what starts others
    Program {
        name: "cron",
        package: "cron",
        build: "echo '@reboot www-data id -un >/tmp/ran' >/etc/cron.d/test",
        way: "",
        baseline: root("exec cron -f"),
        restricted: Fails { words: "/tmp/ran: No such file", why: "no: a job of another user" },
        request: "a job of another user",
        ask: "test -e /run/crond.reboot && cat /tmp/ran",
        answer: "www-data",
    },
    Program {
        name: "supervisord",
        package: "supervisor",
        build: r"cat >/etc/supervisor/test.conf <<END
[supervisord]
nodaemon=true
[unix_http_server]
file=%(ENV_SOCKET)s
[supervisorctl]
serverurl=unix://%(ENV_SOCKET)s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:web]
command=busybox httpd -f -p 8000 -h /etc
END
sed 's|^nodaemon=true|nodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=/tmp/pid\nchildlogdir=/tmp|' /etc/supervisor/test.conf >/etc/supervisor/user.conf",
        way: "first process; makes `/supervisord.log` and `/supervisord.pid`",
        baseline: root("exec supervisord -c /etc/supervisor/test.conf").cwd("/").env("SOCKET=/run/supervisor.sock"),
        restricted: Answers(locked("exec supervisord -c /etc/supervisor/user.conf").cwd("/").env("SOCKET=/tmp/supervisor.sock")),
        request: "its status, its child's HTTP",
        ask: "supervisorctl -s unix://$SOCKET status && curl -sf http://127.0.0.1:8000/debian_version",
        answer: "RUNNING",
    },
    Program {
        name: "runit",
        package: "runit",
        build: r"mkdir -p /etc/service/web && printf '#!/bin/sh\nexec busybox httpd -f -p 8000 -h /etc\n' >/etc/service/web/run && chmod 755 /etc/service/web/run
mkdir -p /etc/user && cp -r /etc/service/web /etc/user/web && ln -s /tmp/supervise /etc/user/web/supervise",
        way: "first process",
        baseline: root("exec runsvdir -P /etc/service").env("SERVICE=/etc/service/web"),
        restricted: Answers(locked("exec runsvdir -P /etc/user").env("SERVICE=/etc/user/web")),
        request: "its status by a pipe, its child's HTTP",
        ask: "sv status $SERVICE && curl -sf http://127.0.0.1:8000/debian_version",
        answer: "13",
    },
    Program {
        name: "s6",
        package: "s6",
        build: r"mkdir -p /etc/s6/web && printf '#!/bin/sh\nexec busybox httpd -f -p 8000 -h /etc\n' >/etc/s6/web/run && chmod 755 /etc/s6/web/run
mkdir -p /etc/user && cp -r /etc/s6/web /etc/user/web && ln -s /tmp/supervise /etc/user/web/supervise && ln -s /tmp/event /etc/user/web/event",
        way: "first process",
        baseline: root("exec s6-svscan /etc/s6").env("SERVICE=/etc/s6/web"),
        restricted: Answers(locked("mkdir /tmp/s6 && ln -s /etc/user/web /tmp/s6/web && exec s6-svscan /tmp/s6").env("SERVICE=/tmp/s6/web")),
        request: "its status by a pipe, its child's HTTP",
        ask: "s6-svstat $SERVICE && curl -sf http://127.0.0.1:8000/debian_version",
        answer: "13",
    },
    Program {
        name: "dumb-init",
        package: "dumb-init",
        build: "",
        way: "first process, with a shell and its child",
        baseline: root("exec dumb-init sh -c 'busybox httpd -f -p 8000 -h /etc & wait'"),
        restricted: Answers(locked("exec dumb-init sh -c 'busybox httpd -f -p 8000 -h /etc & wait'")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/debian_version",
        answer: "13",
    },
    Program {
        name: "tini",
        package: "tini",
        build: "",
        way: "first process",
        baseline: root("exec tini -g busybox -- httpd -f -p 8000 -h /etc"),
        restricted: Answers(locked("exec tini -g busybox -- httpd -f -p 8000 -h /etc")),
        request: "HTTP",
        ask: "curl -sf http://127.0.0.1:8000/debian_version",
        answer: "13",
    },
    Program {
        name: "gosu",
        package: "gosu",
        build: "",
        way: "",
        baseline: root("exec gosu www-data busybox httpd -f -p 8000 -h /etc").becomes("www-data"),
        restricted: Fails { words: "operation not permitted", why: "no: it drops root" },
        request: "HTTP of the program that it starts",
        ask: "curl -sf http://127.0.0.1:8000/debian_version",
        answer: "13",
    },
];
