//! Caches that speak HTTPS to receivers, and to storage points and other caches.

use super::{ACMS, Cluster, acms, certificate_of, done, noise, said, uid_of, wait_until};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

impl Cluster {
    /// The address of a cache. `last`: the last part, which no storage point has.
    fn cache_addr(&self, last: u8) -> String {
        format!("{}{last}:7400", self.base)
    }

    /// Makes a cache's certificate in a directory of this name, and gives the options that show it.
    fn certify_cache(&self, name: &str, host: &str, more: &[&str]) -> [String; 4] {
        self.certify(name, &[more, &["cache", name, "--name", host]].concat());
        self.shown_to_clients(name)
    }

    fn shown_to_clients(&self, name: &str) -> [String; 4] {
        let file = |file: &str| self.path(&format!("{name}/{file}"));
        ["--listen-certificate".into(), file("certificate.pem"), "--listen-key".into(), file("key.pem")]
    }

    /// `acms cache` with its store in a directory of this name, which trusts the authorities of a file.
    fn cache(&self, name: &str, listen: &str, source: &str, ca: &str) -> Command {
        let mut command = Command::new(ACMS);
        command.args(["cache", "--exit-with-parent", "--listen", listen, "--source", source, "--ca", ca]);
        command.args(["--store", &self.path(&format!("{name}.store"))]);
        command
    }

    /// Starts it; its log has its name.
    fn start_cache(&mut self, name: &str, command: &mut Command) {
        let log = File::create(self.path(&format!("{name}.log"))).unwrap();
        self.processes.push(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.wait_log_of(&format!("{name}.log"), "cache at ");
    }

    /// Has a receiver take everything once, from one source.
    fn receive(&self, source: &str, into: &str) -> Output {
        let (ca, into) = (self.ca(), self.path(into));
        acms(&["receive", "--once", "--source", source, "--ca", &ca, "--subscribe", "", "--into", &into])
    }

    fn refused_by(&self, cache: &str, cause: &str) -> u64 {
        self.metric_at(cache, &format!("acms_tls_refused_total{{listener=\"http\",cause=\"{cause}\"}}"))
    }
}

#[test]
fn receivers_converge_through_caches_that_encrypt_and_that_do_not() {
    let mut cluster = Cluster::started(6);
    let publisher = cluster.shown("c/publisher");
    let contents = [("etc/small", noise(1_000)), ("etc/large", noise(5_000_003)), ("etc/none", vec![])];
    for (path, content) in &contents {
        let uid = uid_of(&cluster.publish(1, path, content, &publisher));
        cluster.get(2, path, &uid);
    }
    // Storage points with TLS, a cache with it, one without, and one with it again before that.
    let (near, plain, far) = (cluster.cache_addr(51), cluster.cache_addr(52), cluster.cache_addr(53));
    let (ca, source) = (cluster.ca(), cluster.url(2));
    for (name, addr, source) in [
        ("near", &near, source),
        ("plain", &plain, format!("https://{near}")),
        ("far", &far, format!("http://{plain}")),
    ] {
        let mut command = cluster.cache(name, addr, &source, &ca);
        if name != "plain" {
            command.args(cluster.certify_cache(name, addr.split(':').next().unwrap(), &[]));
        }
        cluster.start_cache(name, &mut command);
    }
    // The second one gets what the caches have kept.
    for into in ["first", "second"] {
        done(&cluster.receive(&format!("https://{far}"), into));
        for (path, content) in &contents {
            assert!(fs::read(cluster.path(&format!("{into}/{path}"))).unwrap() == *content, "{path} in {into}");
        }
    }
    for cache in [&near, &far] {
        let asked = cluster.metric_at(cache, "acms_cache_requests_total{kind=\"object\",result=\"miss\"}");
        assert!(asked >= 2, "all objects came through {cache}: {asked}");
    }
    assert!(cluster.metric_at(&far, "acms_cache_requests_total{kind=\"object\",result=\"hit\"}") >= 2);
    assert!(cluster.log_of("near.log").contains(&format!("cache at https://{near}")));

    // What does not speak TLS gets nothing from a cache that does.
    let before = cluster.refused_by(&far, "protocol");
    let mut stream = TcpStream::connect(&far).unwrap();
    stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\nHost: cache\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    cluster.wait_log_of("far.log", "what it sends is no TLS");
    assert_eq!(cluster.refused_by(&far, "protocol"), before + 1);
}

#[test]
fn what_is_of_another_authority_is_refused_on_both_sides_of_a_cache() {
    let mut cluster = Cluster::started(7);
    cluster.init("foreign");
    let foreign = cluster.path("foreign/authority/authority.pem");
    let (addr, stranger) = (cluster.cache_addr(51), cluster.cache_addr(52));
    let (ca, source) = (cluster.ca(), cluster.url(1));
    let shown = cluster.certify_cache("edge", addr.split(':').next().unwrap(), &[]);
    let mut command = cluster.cache("edge", &addr, &source, &ca);
    cluster.start_cache("edge", command.args(&shown));

    // A client that trusts somebody else: both ends say so, and the cache counts it.
    let before = cluster.refused_by(&addr, "alert");
    let output = acms(&["get", "--from", &format!("https://{addr}"), "--ca", &foreign, "a"]);
    assert!(said(&output).contains("of an authority that is not trusted here"), "{}", said(&output));
    cluster.wait_log_of("edge.log", "of an authority that it does not trust; both ends need certificates");
    assert!(cluster.refused_by(&addr, "alert") > before);

    // A cache that trusts somebody else takes nothing from the storage points, and says why to those who ask it.
    let mut command = cluster.cache("stranger", &stranger, &source, &foreign);
    cluster.start_cache("stranger", &mut command);
    let mut stream = TcpStream::connect(&stranger).unwrap();
    stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("not trusted here"), "{answer}");
    cluster.wait_log_of("stranger.log", "of an authority that is not trusted here");
    cluster.wait_log(1, "of an authority that it does not trust; both ends need certificates");
}

#[test]
fn a_new_certificate_of_a_cache_is_taken_while_it_runs() {
    let mut cluster = Cluster::started(8);
    let (ca, addr) = (cluster.ca(), cluster.cache_addr(51));
    let shown = cluster.certify_cache("edge", "localhost", &["--lifetime", "2d"]);
    let mut command = cluster.cache("edge", &addr, &cluster.url(1), &ca);
    cluster.start_cache("edge", command.args(&shown));
    let warning = "the certificate of this cache expires within 14 days, and then nobody speaks to it any more: make a new \
                   one with `acms certificate cache`";
    cluster.wait_log_of("edge.log", warning);
    let pem = |name: &str| cluster.path(&format!("{name}/certificate.pem"));
    let first = certificate_of(&ca, &addr);
    assert_eq!(first, CertificateDer::from_pem_file(pem("edge")).unwrap());

    // Noticed, without a signal: those who had not found the name in the URL find it.
    let health = "GET /healthz HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n";
    let refused = cluster.ask(&addr, None, health).unwrap_err().to_string();
    assert!(refused.contains("does not have the name or address in the URL"), "{refused}");
    cluster.certify_cache("new", addr.split(':').next().unwrap(), &[]);
    for file in ["key.pem", "certificate.pem"] {
        fs::copy(cluster.path(&format!("new/{file}")), cluster.path(&format!("edge/{file}"))).unwrap();
    }
    wait_until("the new one is shown", || {
        cluster.ask(&addr, None, health).is_ok_and(|answer| answer.ends_with("ok\n"))
    });
    let source = format!("https://{addr}");
    done(&cluster.receive(&source, "into"));
    assert_eq!(cluster.log_of("edge.log").matches("expires within").count(), 1, "the new one is good for a year");

    // What cannot be used changes nothing.
    let kept = || cluster.log_of("edge.log").matches("certificate and key stay as they were").count();
    let before = kept();
    fs::write(pem("edge"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    wait_until("it is refused", || kept() > before);
    done(&cluster.receive(&source, "into"));
    fs::copy(pem("new"), pem("edge")).unwrap();

    // At a signal at once, whether or not anything has changed.
    let said_so = || cluster.log_of("edge.log").matches("certificate and key were read again").count();
    wait_until("it is noticed", || said_so() >= 2);
    let before = said_so();
    let process = nix::unistd::Pid::from_raw(cluster.processes[3].id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGHUP).unwrap();
    wait_until("the signal is heard", || said_so() == before + 1);
}

#[test]
fn a_cache_says_nothing_in_plain_text_to_other_machines_unless_asked_for() {
    let cluster = Cluster::new(9);
    let (ca, source) = (cluster.ca(), cluster.url(1));
    let shown = cluster.certify_cache("edge", "localhost", &[]);
    let run = |listen: &str, options: &[&str], variables: &[(&str, &str)]| {
        let mut command = cluster.cache("edge", listen, &source, &ca);
        let output = command.args(options).envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), said(&output))
    };
    // No machine has this address: a cache that would serve there cannot, and says so.
    let absent = "192.0.2.1:7400";
    for (listen, variables) in
        [("0.0.0.0:7400", vec![]), ("[::]:7400", vec![]), (absent, vec![("ACMS_PLAIN_TEXT", "no")])]
    {
        let (code, text) = run(listen, &[], &variables);
        assert!(code == Some(2) && text.contains(&format!("others than this machine reach {listen}")), "{text}");
        for remedy in ["acms certificate cache", "--listen-certificate", "--listen-key", "--plain-text"] {
            assert!(text.contains(remedy), "{remedy}: {text}");
        }
        assert!(!fs::exists(cluster.path("edge.store")).unwrap(), "nothing was begun");
    }
    let files: Vec<&str> = shown.iter().map(String::as_str).collect();
    let by_name = [("ACMS_LISTEN_CERTIFICATE", files[1]), ("ACMS_LISTEN_KEY", files[3])];
    for (options, variables) in [
        (&["--plain-text"][..], &[][..]),
        (&[], &[("ACMS_PLAIN_TEXT", "yes")]),
        (&files, &[]),
        (&files, &[("ACMS_PLAIN_TEXT", "no")]),
        (&[], &by_name),
    ] {
        let (code, text) = run(absent, options, variables);
        assert!(code == Some(2) && text.contains("cannot listen at 192.0.2.1:7400"), "{options:?}: {text}");
    }
}

#[test]
fn a_cache_does_not_start_with_a_certificate_that_no_client_would_take() {
    let cluster = Cluster::new(10);
    let (ca, source, addr) = (cluster.ca(), cluster.url(1), cluster.cache_addr(51));
    let run = |options: &[String]| {
        let output = cluster.cache("edge", &addr, &source, &ca).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    let expired = cluster.certify_cache("expired", "localhost", &["--lifetime", "1s"]);
    let mixed = cluster.certify_cache("edge", "localhost", &[]);
    let other = cluster.certify_cache("other", "localhost", &[]);
    assert!(run(&mixed[..2]).contains("--listen-key"));
    assert!(run(&[&mixed[..], &["--plain-text".to_owned()]].concat()).contains("leave out --plain-text"));
    assert!(run(&[&mixed[..2], &other[2..]].concat()).contains("do not fit together"));
    assert!(run(&cluster.shown_to_clients("c/publisher")).contains("is not made for this use"));
    assert!(run(&cluster.shown_to_clients("nothing")).contains("nothing/certificate.pem cannot be read"));
    fs::set_permissions(cluster.path("other/key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(run(&other).contains("chmod 600"));
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    assert!(run(&expired).contains("expired/certificate.pem cannot be used: its certificate has expired"));
}
