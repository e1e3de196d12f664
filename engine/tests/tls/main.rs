//! A cluster of three real processes that speak TLS, on loopback: who is let in, who is not and what both ends say of it,
//! who may publish what, and certificates that change while everything runs; the same of caches before it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and sockets are the point")]

mod cache;

use acms_engine::tls::{ClientTls, Session};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

const ACMS: &str = env!("CARGO_BIN_EXE_acms");
const PATIENCE: Duration = Duration::from_secs(60);

/// Three storage points with certificates; their processes end with this.
struct Cluster {
    dir: tempfile::TempDir,
    base: String,
    processes: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn acms(args: &[&str]) -> Output {
    Command::new(ACMS).args(args).env_remove("ACMS_CA").output().unwrap()
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Cluster {
    /// Laid out, nothing started. `test` keeps addresses of tests apart.
    fn new(test: u8) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("127.{}.{}.", 140 + test, 1 + std::process::id() % 250);
        let cluster = Cluster { dir, base, processes: Vec::new() };
        cluster.init("c");
        cluster
    }

    /// A layout of this cluster with an authority of its own.
    fn init(&self, name: &str) {
        let (dir, base) = (self.path(name), format!("{}0", self.base));
        done(&acms(&["init", &dir, "--tls", "--cluster", "tls", "--storage-points", "3", "--address-base", &base]));
    }

    fn started(test: u8) -> Cluster {
        let mut cluster = Cluster::new(test);
        (1..=3).for_each(|sp| cluster.start(sp, &[]));
        (1..=3).for_each(|sp| cluster.wait_serves(sp));
        cluster
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn ca(&self) -> String {
        self.path("c/authority/authority.pem")
    }

    fn url(&self, sp: u8) -> String {
        format!("https://{}", self.addr(sp))
    }

    fn addr(&self, sp: u8) -> String {
        format!("{}{sp}:7400", self.base)
    }

    fn command(&self, sp: u8) -> Command {
        let mut command = Command::new(ACMS);
        command.args(["storage-point", "--exit-with-parent", "--config", &self.path(&format!("c/sp{sp}/acms.toml"))]);
        command.args(["--events", &self.path(&format!("events{sp}"))]);
        command
    }

    fn start(&mut self, sp: u8, variables: &[(&str, &str)]) {
        let log = File::create(self.path(&format!("log{sp}"))).unwrap();
        let process = self.command(sp).envs(variables.iter().copied()).stdout(Stdio::null()).stderr(log).spawn();
        self.processes.push(process.unwrap());
    }

    fn log(&self, sp: u8) -> String {
        self.log_of(&format!("log{sp}"))
    }

    fn log_of(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }

    fn wait_log(&self, sp: u8, part: &str) {
        self.wait_log_of(&format!("log{sp}"), part);
    }

    fn wait_log_of(&self, file: &str, part: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.log_of(file).contains(part) {
            assert!(Instant::now() < until, "{file} does not say {part:?}: {}", self.log_of(file));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_serves(&self, sp: u8) {
        self.wait_log(sp, "serves at https://");
    }

    /// Makes a certificate in a directory of this name, and gives the arguments that show it.
    fn certify(&self, name: &str, more: &[&str]) -> [String; 4] {
        let (authority, out) = (self.path("c/authority"), self.path(name));
        done(&acms(&[&["certificate", "--authority", &authority, "--out", &out], more].concat()));
        self.shown(name)
    }

    fn shown(&self, name: &str) -> [String; 4] {
        let file = |file: &str| self.path(&format!("{name}/{file}"));
        ["--cert".into(), file("certificate.pem"), "--cert-key".into(), file("key.pem")]
    }

    fn publish(&self, sp: u8, path: &str, content: &[u8], shown: &[String]) -> Output {
        let file = self.path("content");
        fs::write(&file, content).unwrap();
        let mut args = vec!["publish", "--to"];
        let (url, ca) = (self.url(sp), self.ca());
        args.extend([url.as_str(), "--ca", &ca]);
        args.extend(shown.iter().map(String::as_str));
        args.extend([path, &file]);
        acms(&args)
    }

    fn get(&self, sp: u8, path: &str, uid: &str) -> Vec<u8> {
        let output = acms(&["get", "--from", &self.url(sp), "--ca", &self.ca(), "--at-least", uid, path]);
        assert!(output.status.success(), "{}", said(&output));
        output.stdout
    }

    /// A session with a storage point, with the certificate of a directory if one is named.
    fn session(&self, addr: &str, shown: Option<&str>) -> io::Result<Session> {
        let pair =
            shown.map(|name| [format!("{name}/certificate.pem"), format!("{name}/key.pem")].map(|it| self.path(&it)));
        let pair = pair.as_ref().map_or((None, None), |[cert, key]| (Some(Path::new(cert)), Some(Path::new(key))));
        let tls = ClientTls::load(Some(Path::new(&self.ca())), pair).unwrap();
        tls.connect(addr.split(':').next().unwrap())
    }

    /// One request over TLS, with the certificate of a directory if one is named: the answer.
    fn ask(&self, addr: &str, shown: Option<&str>, request: &str) -> io::Result<String> {
        exchange(self.session(addr, shown)?, addr, request.as_bytes())
    }

    /// Sends storage point 1 the beginning of a request, and no more.
    fn break_off(&self, shown: &str, request: &[u8]) {
        let mut session = self.session(&self.addr(1), Some(shown)).unwrap();
        let mut tcp = TcpStream::connect(self.addr(1)).unwrap();
        let mut written = 0;
        while written < request.len() {
            written += session.write(&mut tcp, &request[written..]).unwrap();
        }
        // All of it arrives before the connection ends.
        tcp.shutdown(Shutdown::Write).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = io::copy(&mut tcp, &mut io::sink());
    }

    /// A PUT of two bytes at storage point 1: its status and the whole answer.
    fn put(&self, path: &str, shown: Option<&str>, headers: &[&str]) -> (u16, String) {
        let headers = headers.iter().fold(String::new(), |text, header| format!("{text}{header}\r\n"));
        let head = format!("PUT /v1/config/{path} HTTP/1.1\r\nHost: sp\r\nConnection: close\r\nContent-Length: 2\r\n");
        let answer = self.ask(&self.addr(1), shown, &format!("{head}{headers}\r\nhi")).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{answer:?}")), answer)
    }

    fn metric(&self, sp: u8, name: &str) -> u64 {
        self.metric_at(&self.addr(sp), name)
    }

    fn metric_at(&self, addr: &str, name: &str) -> u64 {
        let request = "GET /metrics HTTP/1.1\r\nHost: sp\r\nConnection: close\r\n\r\n";
        let text = self.ask(addr, None, request).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        line.trim().parse().unwrap()
    }

    fn edit_config(&self, sp: u8, edit: impl FnOnce(String) -> String) {
        let file = self.path(&format!("c/sp{sp}/acms.toml"));
        fs::write(&file, edit(fs::read_to_string(&file).unwrap())).unwrap();
    }
}

/// Sends `request` and reads until the other end has said all.
fn exchange(mut session: Session, addr: &str, request: &[u8]) -> io::Result<String> {
    let mut tcp = TcpStream::connect(addr)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut written = 0;
    while written < request.len() {
        written += session.write(&mut tcp, &request[written..])?;
    }
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match session.read(&mut tcp, &mut part)? {
            0 => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            len => answer.extend_from_slice(&part[..len]),
        }
    }
}

/// The certificate that a server shows now.
fn certificate_of(ca: &str, addr: &str) -> CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config.with_no_client_auth()), name).unwrap();
    let mut tcp = TcpStream::connect(addr).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).unwrap();
    }
    connection.peer_certificates().unwrap()[0].clone().into_owned()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(next).collect()
}

fn uid_of(output: &Output) -> String {
    let text = done(output);
    text.trim().rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn contents_of_any_size_go_the_whole_way_encrypted() {
    let cluster = Cluster::started(0);
    let publisher = cluster.shown("c/publisher");
    // Small ones lie in the log, larger ones are files that plain connections get by sendfile.
    for (path, content) in [("etc/small", noise(1_000)), ("etc/large", noise(5_000_003)), ("etc/none", vec![])] {
        let uid = uid_of(&cluster.publish(1, path, &content, &publisher));
        for sp in 1..=3 {
            assert!(cluster.get(sp, path, &uid) == content, "{path} at {sp}");
        }
    }
    let into = cluster.path("into");
    let (source, ca) = (cluster.url(2), cluster.ca());
    done(&acms(&["receive", "--once", "--source", &source, "--ca", &ca, "--subscribe", "etc", "--into", &into]));
    assert!(fs::read(format!("{into}/etc/large")).unwrap() == noise(5_000_003));
    let status = done(&acms(&["status", "--from", &source, "--ca", &ca]));
    assert!(status.contains("healthy"), "{status}");
    assert!(fs::read_to_string(cluster.path("events1")).unwrap().contains("\"publisher\":\"publisher\""));
    // What does not speak TLS gets nothing.
    let mut plain = TcpStream::connect(cluster.addr(1)).unwrap();
    plain.write_all(b"GET /v1/snapshot HTTP/1.1\r\nHost: sp\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    cluster.wait_log(1, "what it sends is no TLS");
    let (file, url) = (cluster.path("etc-large"), format!("{}/v1/config/etc/large", cluster.url(3)));
    match Command::new("curl").args(["-sS", "--cacert", &ca, "-o", &file, &url]).output() {
        Ok(curl) => {
            done(&curl);
            assert!(fs::read(&file).unwrap() == noise(5_000_003));
        }
        Err(error) => eprintln!("there is no curl here: {error}"),
    }
}

#[test]
fn who_may_publish_what() {
    let mut cluster = Cluster::new(1);
    let deliver = format!("{}9:7400", cluster.base);
    cluster.edit_config(1, |text| {
        let (address, tokens) = (format!("deliver = \"{deliver}\""), "[publishers]\ntokens = \"tokens.toml\"\n");
        let text = text.replace(&format!("deliver = \"{}\"", cluster.addr(1)), &address);
        text.replace("[tls]", &format!("{tokens}\n[tls]"))
    });
    let tokens = cluster.path("c/sp1/tokens.toml");
    let token = done(&acms(&["token", "--tokens", &tokens, "--under", "etc/app", "deploy"])).trim().to_owned();
    assert!(!fs::read_to_string(&tokens).unwrap().contains(&token));
    // The certificate of storage point 1 has no name for the address of its own that readers get.
    fs::remove_file(cluster.path("c/sp1/certificate.pem")).unwrap();
    fs::remove_file(cluster.path("c/sp1/key.pem")).unwrap();
    let names = [format!("{}1", cluster.base), format!("{}9", cluster.base)];
    cluster.certify("c/sp1", &["storage-point", "1", "--name", &names[0], "--name", &names[1]]);
    (1..=3).for_each(|sp| cluster.start(sp, &[]));
    (1..=3).for_each(|sp| cluster.wait_serves(sp));
    cluster.certify("web", &["publisher", "web", "--under", "www", "--under", "etc/web"]);
    cluster.certify("cache", &["cache", "edge", "--name", "cache.example"]);

    let (status, answer) = cluster.put("etc/app/a", None, &[]);
    assert_eq!(status, 401, "{answer}");
    assert!(answer.contains("WWW-Authenticate: Bearer") && answer.contains("ACMS-Outcome: rejected"), "{answer}");
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(cluster.put("etc/app/a", None, &["Authorization: Bearer acms_00"]).0, 401);
    assert_eq!(cluster.put("etc/app/a", None, &[&bearer]).0, 201);
    assert_eq!(cluster.put("etc/app/a", None, &[&bearer, "ACMS-Publisher: root"]).0, 201);
    for path in ["etc/app2", "etc", "www/a"] {
        let (status, answer) = cluster.put(path, None, &[&bearer]);
        assert!(status == 403 && answer.contains("etc/app"), "{answer}");
    }
    assert_eq!(cluster.put("www/a", Some("web"), &["ACMS-Publisher: root"]).0, 201);
    assert_eq!(cluster.put("etc/app/a", Some("web"), &[]).0, 403);
    assert_eq!(cluster.put("etc/app/a", Some("cache"), &[]).0, 403, "a cache's certificate gives no right");
    assert_eq!(cluster.put("any/where", Some("c/publisher"), &[]).0, 201);

    let events = fs::read_to_string(cluster.path("events1")).unwrap();
    assert!(events.contains("\"publisher\":\"deploy\"") && events.contains("\"publisher\":\"web\""), "{events}");
    assert!(!events.contains("root"), "whoever shows a name publishes under no other: {events}");
    // By key it finds what it has published, under the name that it has shown.
    let (status, _) = cluster.put("www/b", Some("web"), &["Idempotency-Key: k1"]);
    assert_eq!(status, 201);
    let by_key = "GET /v1/publications?key=k1 HTTP/1.1\r\nHost: sp\r\nConnection: close\r\n\r\n";
    assert!(cluster.ask(&cluster.addr(1), Some("web"), by_key).unwrap().starts_with("HTTP/1.1 200"));
    assert!(cluster.ask(&cluster.addr(1), None, by_key).unwrap().starts_with("HTTP/1.1 404"));
    // So it does with what is here of a content that broke off, whatever name the question has.
    let head = "PUT /v1/config/www/c HTTP/1.1\r\nHost: sp\r\nIdempotency-Key: k2\r\nContent-Length: 200000\r\n\r\n";
    cluster.break_off("web", &[head.as_bytes(), &noise(150_000)[..]].concat());
    let begun = "GET /v1/uploads?key=k2&publisher=root HTTP/1.1\r\nHost: sp\r\nConnection: close\r\n\r\n";
    let ask = |shown: Option<&str>| cluster.ask(&cluster.addr(1), shown, begun).unwrap();
    wait_until("what has come is kept", || ask(Some("web")).contains("\"received\":150000"));
    assert!(ask(None).starts_with("HTTP/1.1 404"));

    // At the address for readers nobody publishes, and everybody reads.
    let put =
        format!("PUT /v1/config/x HTTP/1.1\r\nHost: sp\r\n{bearer}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(cluster.ask(&deliver, None, &put).unwrap().starts_with("HTTP/1.1 405"));
    let get = "GET /v1/config/www/a HTTP/1.1\r\nHost: sp\r\nConnection: close\r\n\r\n";
    assert!(cluster.ask(&deliver, None, get).unwrap().ends_with("hi"));
}

#[test]
fn publishers_with_wrong_certificates_are_refused_and_told_why() {
    let cluster = Cluster::started(2);
    let expired = cluster.certify("expired", &["--lifetime", "1s", "publisher", "late"]);
    cluster.init("foreign");
    let foreign = cluster.shown("foreign/publisher");
    let before = cluster.metric(1, "acms_tls_refused_total{listener=\"http\",cause=\"expired\"}");
    std::thread::sleep(Duration::from_millis(2_100));
    for (shown, told, logged) in [
        (&expired, "the certificate of this end has expired", "its certificate has expired"),
        (&foreign, "of an authority that it does not trust", "of an authority that is not trusted here"),
    ] {
        let output = cluster.publish(1, "a", b"a", shown);
        assert_eq!(output.status.code(), Some(2), "nothing was published, and that is certain: {}", said(&output));
        assert!(said(&output).contains(told) && said(&output).contains("remedy"), "{}", said(&output));
        cluster.wait_log(1, logged);
    }
    assert!(cluster.metric(1, "acms_tls_refused_total{listener=\"http\",cause=\"expired\"}") > before);
    assert!(cluster.metric(1, "acms_tls_refused_total{listener=\"http\",cause=\"authority\"}") > 0);
    // A server of another authority, and none that is known at all.
    let ca = cluster.path("foreign/authority/authority.pem");
    let output = acms(&["get", "--from", &cluster.url(1), "--ca", &ca, "a"]);
    assert!(said(&output).contains("of an authority that is not trusted here"), "{}", said(&output));
    let output = acms(&["get", "--from", &cluster.url(1), "--ca", &cluster.path("nothing"), "a"]);
    assert!(said(&output).contains("nothing cannot be read"), "{}", said(&output));
    let output = cluster.publish(1, "a", b"a", &cluster.shown("c/publisher")[..2]);
    assert!(said(&output).contains("give both --cert and --cert-key"), "{}", said(&output));
}

#[test]
fn storage_points_with_wrong_certificates_are_refused_by_the_others() {
    let mut cluster = Cluster::new(3);
    // To the first two it is two days later than to the third, whose certificate is for one day.
    let clock = cluster.path("clock");
    fs::write(&clock, (2 * 86_400_000_000_u64).to_string()).unwrap();
    let replace = |cluster: &Cluster, more: &[&str]| {
        for file in ["certificate.pem", "key.pem"] {
            fs::remove_file(cluster.path(&format!("c/sp3/{file}"))).unwrap();
        }
        cluster.certify("c/sp3", &[more, &["--name", "localhost"]].concat());
    };
    replace(&cluster, &["--lifetime", "1d", "storage-point", "3"]);
    let late = [("ACMS_CLOCK_OFFSET", clock.as_str())];
    (1..=2).for_each(|sp| cluster.start(sp, &late));
    cluster.start(3, &[]);
    cluster.wait_log(3, "the certificate of this storage point expires within 14 days");
    assert!(!cluster.log(1).contains("expires within"), "that one is good for a year");
    cluster.wait_log(1, "the link to storage point 2 is up");
    cluster.wait_log(1, "its certificate has expired; make it a new certificate");
    cluster.wait_log(3, "it says that the certificate of this end has expired; make it a new certificate");
    wait_until("it is counted", || {
        cluster.metric(1, "acms_tls_refused_total{listener=\"peer\",cause=\"expired\"}") > 0
    });
    assert!(!cluster.log(1).contains("the link to storage point 3 is up"));

    // All of another authority: what that storage point has fits together, and nobody here trusts it.
    cluster.processes.pop().map(|mut third| third.kill().and_then(|()| third.wait())).unwrap().unwrap();
    cluster.init("foreign");
    for file in ["authority.pem", "certificate.pem", "key.pem"] {
        fs::copy(cluster.path(&format!("foreign/sp3/{file}")), cluster.path(&format!("c/sp3/{file}"))).unwrap();
    }
    cluster.start(3, &late);
    cluster.wait_log(1, "of an authority that is not trusted here; both ends need certificates of one authority");
    cluster.wait_log(3, "of an authority that it does not trust; both ends need certificates of one authority");

    // None at all.
    let stranger = stranger(&cluster.ca());
    let peer = format!("{}1:7500", cluster.base);
    assert!(exchange(stranger, &peer, b"hello").is_err());
    cluster.wait_log(1, "it has presented no certificate; give it a certificate");
    wait_until("it is counted", || {
        cluster.metric(1, "acms_tls_refused_total{listener=\"peer\",cause=\"missing\"}") > 0
    });

    // That of another storage point, and one that has expired, are not even begun with.
    fs::copy(cluster.path("c/authority/authority.pem"), cluster.path("c/sp3/authority.pem")).unwrap();
    replace(&cluster, &["storage-point", "2"]);
    let output = cluster.command(3).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("is that of storage point 2, not of 3"), "{}", said(&output));
    replace(&cluster, &["--lifetime", "1s", "storage-point", "3"]);
    std::thread::sleep(Duration::from_millis(2_100));
    assert!(said(&cluster.command(3).output().unwrap()).contains("its certificate has expired"));
}

/// A session with a peer listener that shows no certificate.
fn stranger(ca: &str) -> Session {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"acms-peer".to_vec()];
    Session::client(&Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

#[test]
fn certificates_and_tokens_change_while_it_runs() {
    let cluster = Cluster::started(4);
    let (ca, addr) = (cluster.ca(), cluster.addr(1));
    let pem = PathBuf::from(cluster.path("c/sp1/certificate.pem"));
    let first = certificate_of(&ca, &addr);
    assert_eq!(first, CertificateDer::from_pem_file(&pem).unwrap());

    // Noticed, without a signal. The name is another: clients are told.
    cluster.certify("new", &["storage-point", "1", "--name", "localhost"]);
    fs::copy(cluster.path("new/key.pem"), cluster.path("c/sp1/key.pem")).unwrap();
    fs::copy(cluster.path("new/certificate.pem"), &pem).unwrap();
    wait_until("the new one is shown", || certificate_of(&ca, &addr) != first);
    assert_eq!(certificate_of(&ca, &addr), CertificateDer::from_pem_file(&pem).unwrap());
    let output = acms(&["get", "--from", &cluster.url(1), "--ca", &ca, "a"]);
    assert!(said(&output).contains("does not have the name or address in the URL"), "{}", said(&output));

    // What cannot be used changes nothing.
    let second = certificate_of(&ca, &addr);
    fs::write(&pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    cluster.wait_log(1, "certificates and tokens stay as they were");
    assert_eq!(certificate_of(&ca, &addr), second);
    fs::copy(cluster.path("new/certificate.pem"), &pem).unwrap();

    // At a signal at once, whether or not anything has changed.
    let said_so = || cluster.log(1).matches("were read again").count();
    wait_until("it is noticed", || said_so() == 2);
    let process = nix::unistd::Pid::from_raw(cluster.processes[0].id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGHUP).unwrap();
    wait_until("the signal is heard", || said_so() == 3);
    // Links made before stay, and new ones are made with the new certificate.
    let uid = uid_of(&cluster.publish(2, "etc/a", b"still agreed", &cluster.shown("c/publisher")));
    assert_eq!(cluster.get(3, "etc/a", &uid), b"still agreed");
}

#[test]
fn nothing_is_said_in_plain_text_to_other_machines_unless_asked_for() {
    let cluster = Cluster::new(5);
    let check = |sp: u8| {
        let output = cluster.command(sp).arg("--check").output().unwrap();
        (output.status.code(), said(&output))
    };
    assert_eq!(check(1).0, Some(0), "{}", check(1).1);
    cluster.edit_config(1, |text| {
        let without =
            text.split("[tls]").next().unwrap().to_owned() + "[[members]]" + text.split_once("[[members]]").unwrap().1;
        without.replace(&format!("publish = \"{}\"", cluster.addr(1)), "publish = \"0.0.0.0:7400\"")
    });
    let (code, text) = check(1);
    assert!(code == Some(2) && text.contains("listen.publish") && text.contains("acms certificate"), "{text}");
    let output = cluster.command(1).output().unwrap();
    assert!(output.status.code() == Some(2) && said(&output).contains("listen.publish"), "{}", said(&output));
    // A key that others can read is none.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(cluster.path("c/sp2/key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = check(2);
    assert!(code == Some(2) && text.contains("chmod 600"), "{text}");
}
