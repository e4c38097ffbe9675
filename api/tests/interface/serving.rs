//! A site that serves: one port for content and interface, an orderly end, one user of a folder.

use crate::client::TestSite;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use tokio_util::sync::CancellationToken;

fn ask(address: SocketAddr, request: String) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_serves_content_and_interface_and_stops_when_told() {
    let site = TestSite::with(|config| config.listen = SocketAddr::from(([127, 0, 0, 1], 0)));
    let stop = CancellationToken::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    let serving =
        tokio::spawn(api::serve(site.site.clone(), Default::default(), stop.clone(), |address| {
            tell.send(address).unwrap();
        }));
    let address = told.await.unwrap();
    let token = std::fs::read_to_string(site.site.token_file()).unwrap();
    let token = token.trim().to_owned();
    let answers = tokio::task::spawn_blocking(move || {
        let get = |path: &str| {
            let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
            ask(address, format!("{head}authorization: Bearer {token}\r\n\r\n"))
        };
        let put = format!(
            "PUT /api/v1/content HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\ncontent-length: 5\r\n\r\nhello"
        );
        let put = ask(address, put);
        let digest = contentlib::Digest::of(b"hello");
        [get("/healthz"), get("/api/v1/whoami"), put, get(&format!("/content/{digest}"))]
    });
    let answers = answers.await.unwrap();
    for (answer, status) in answers.iter().zip([200, 200, 201, 200]) {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(answers[1].contains("\"name\":\"admin\""));
    assert!(answers[3].ends_with("\r\n\r\nhello"));
    let log = site.local().get("/api/v1/audit").await.expect(200).json;
    assert_eq!(log["items"][0]["action"], "upload_content");
    assert_eq!(log["items"][0]["from"], "127.0.0.1");
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn a_folder_has_one_user() {
    let site = TestSite::new();
    let config = site.site.config().clone();
    let Err(error) = api::Site::open(config.clone(), "another test") else { panic!() };
    let message = error.to_string();
    let pid = std::process::id().to_string();
    assert!(message.contains(&pid) && message.contains("a test"), "{message}");
    drop(site.site);
    api::Site::open(config, "another test").unwrap();
}
