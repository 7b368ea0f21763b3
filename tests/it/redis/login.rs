//! Who may talk to the server, and over what: passwords and TLS.

use std::{path::Path, process::Command};

use tallymark::{
    hot::{HotView as _, Options},
    retry::Kind,
};

use super::{Server, add, counter, fresh, load, open, options, read};

#[tokio::test]
async fn a_wrong_password_is_named_and_a_right_one_is_taken() {
    let server = Server::start_with(|_, _| (vec!["--requirepass".into(), "right".into()], ":right@".into())).await;
    for login in ["", ":wrong@", "nobody:right@"] {
        let view = open(&format!("redis://{login}{}", server.address()), &options());
        let error = view.read(&[]).await.unwrap_err();
        assert_eq!(error.kind, Kind::Fatal, "{error}");
        assert!(error.message.contains("hot.url") && error.message.contains("password"), "{error}");
        assert!(!error.message.contains("right"), "{error}");
    }
    let view = open(&format!("redis://:right@{}", server.address()), &options());
    let key = counter("a");
    assert!(load(&view, &key, (1, 1), None).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), fresh(1));
    // A database of its own.
    let other = open(&format!("redis://:right@{}/3", server.address()), &options());
    assert_eq!(other.known(&[key]).await.unwrap(), [false]);
}

#[tokio::test]
async fn a_user_who_lacks_a_permission_is_told() {
    let server = Server::start(&[]).await;
    let () = server.ask(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-hsetnx"]).await;
    let view = open(&format!("redis://app:pw@{}", server.address()), &options());
    let error = super::try_add(&view, &counter("a"), 0, 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::Fatal, "{error}");
    assert!(error.message.contains("hsetnx"), "{error}");
    let () = server.ask(&["ACL", "SETUSER", "app", "+hsetnx"]).await;
    add(&view, &counter("a"), 1, 1).await;
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.expect("openssl is installed: it makes this test's certificates");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A throwaway authority `ca.crt`, and a certificate of it for the loopback address.
fn certificates(folder: &Path) {
    openssl(
        folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
    );
    openssl(
        folder,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=redis",
    );
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile san",
    );
}

#[tokio::test]
async fn an_encrypted_connection_trusts_the_authority_that_is_named_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut tls_port = 0;
    let server = Server::start_with(|port, _| {
        tls_port = port + 10_000;
        let arguments = ["--tls-port", &tls_port.to_string(), "--tls-cert-file", &path("server.crt")].map(String::from);
        let more =
            ["--tls-key-file", &path("server.key"), "--tls-ca-cert-file", &path("ca.crt"), "--tls-auth-clients", "no"];
        (arguments.into_iter().chain(more.map(String::from)).collect(), String::new())
    })
    .await;
    let url = format!("rediss://127.0.0.1:{tls_port}");
    let view = open(&url, &Options { ca_file: path("ca.crt"), ..options() });
    let key = counter("a");
    assert!(load(&view, &key, (1, 1), None).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), fresh(1));
    let distrusts = open(&url, &options());
    let error = distrusts.read(&[]).await.unwrap_err();
    assert!(error.message.to_lowercase().contains("certificate"), "{error}");
    // The two do not fit together, and that is said.
    let plain = open(&format!("rediss://{}", server.address()), &options());
    assert_eq!(plain.read(&[]).await.unwrap_err().kind, Kind::Transient);
}

#[test]
fn a_file_of_certificates_that_is_not_there_is_named() {
    let (tls, cluster, servers) = super::server::servers("rediss://127.0.0.1:1");
    let options = Options { ca_file: "/not/there.pem".to_owned(), ..options() };
    let error = tallymark::hot::redis::Redis::open(tls, cluster, &servers, &options).err().expect("it is not there");
    assert!(error.message.contains("hot.ca_file") && error.message.contains("/not/there.pem"), "{error}");
}
