//! TLS, HTTP/2 and kept connections, as curl sees them.

use std::path::Path;
use std::process::Command;

use tests::events::{self, Random};
use tests::faults::{self, SOON, Timed};
use tests::rivulet::{Options, Rivulet, run};

/// Writes a fresh certificate for this machine, as PEM with its key.
fn certify(certificate: &Path, key: &Path) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    std::fs::write(key, made.signing_key.serialize_pem()).unwrap();
}

/// Runs curl; what it printed, if it could talk to the program.
async fn curl(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]).args(arguments);
    let output = run(&mut command).await;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_by_http_2_and_http_1_1_over_tls_and_a_new_certificate_is_taken_while_it_runs() {
    let _timed = Timed::new("tls");
    let options = Options {
        config: Some("[tls]\ncertificate = \"{dir}/cert.pem\"\nkey = \"{dir}/key.pem\"\n".to_owned()),
        ..Options::default()
    };
    let mut rivulet = Rivulet::prepared(options);
    let (certificate, key) = (rivulet.path("cert.pem"), rivulet.path("key.pem"));
    certify(&certificate, &key);
    rivulet.spawn();
    let url = format!("https://{}", rivulet.address());
    let trusted = rivulet.path("trusted.pem");
    std::fs::copy(&certificate, &trusted).unwrap();
    let trust = trusted.to_string_lossy().into_owned();
    let ready = format!("{url}/ready");
    faults::eventually("/ready answers over TLS", SOON, async || {
        curl(&["--cacert", &trust, "--fail", &ready]).await
    })
    .await;

    let mut random = Random::seeded("tls");
    let events_url = format!("{url}/v1/events");
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let event = events::page_view(&mut random, &events::of_device("a1")).to_string();
        let told = "\n%{http_version} %{http_code} %{num_connects}\n";
        let one = ["-H", "authorization: Bearer wk_dev", "-d", &event, &events_url];
        let arguments = [&["--cacert", &trust, flag, "-w", told][..], &one, &[&events_url]].concat();
        let answer = curl(&arguments).await.expect("curl talks to it");
        let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with(version)).collect();
        // Two requests, one connection; the second finds its event known.
        assert_eq!(lines, [format!("{version} 200 1"), format!("{version} 200 0")], "{answer}");
        assert!(answer.contains("\"duplicate\""), "{answer}");
    }

    assert!(
        curl(&["--http1.1", &format!("http://{}/live", rivulet.address())]).await.is_none(),
        "no plain HTTP"
    );
    std::fs::write(&key, "broken").unwrap();
    faults::eventually("the broken key is told", SOON, async || {
        rivulet.stderr().contains("the changed certificate cannot be used").then_some(())
    })
    .await;
    assert!(curl(&["--cacert", &trust, &ready]).await.is_some(), "the old certificate stays");
    certify(&certificate, &key);
    let new = certificate.to_string_lossy().into_owned();
    faults::eventually("the new certificate is in force", SOON, async || {
        curl(&["--cacert", &new, &ready]).await
    })
    .await;
    assert!(curl(&["--cacert", &trust, &ready]).await.is_none(), "the old one is gone");
    rivulet.terminate(SOON).await;
}
