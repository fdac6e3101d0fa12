//! The HTTP interface as others see it: raw bytes on a socket.

use std::net::SocketAddr;

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::Agent;
use crate::stage::Stage;

#[tokio::test]
async fn the_orchestrators_calls_answer_with_the_place_of_the_job() {
    let stage = Stage::new().await;
    let bearer = bearer(&stage);
    for call in ["$export", "%24prepareAndPublishImage"] {
        let body = r#"{"disk":{"lun":1},"outputImageFilename":"i"}"#;
        let answer = post(stage.admin, &format!("/images/{call}"), &bearer, body).await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        let location = header(&answer, "location");
        let shown = get(stage.admin, location, &bearer).await;
        assert!(shown.contains(r#""status":"pending""#), "{shown}");
    }
    let listed = get(stage.admin, "/jobs?pageSize=1", &bearer).await;
    assert!(listed.contains(r#""continuationToken":"2""#), "{listed}");
    assert!(listed.contains("prepareAndPublish"), "{listed}");
    let rest = get(stage.admin, "/jobs?pageSize=1&continuationToken=2", &bearer).await;
    assert!(rest.contains(r#""operation":"export""#), "{rest}");
    assert!(rest.contains(r#""continuationToken":null"#), "{rest}");
    stage.stop().await;
}

#[tokio::test]
async fn nothing_is_told_or_done_without_the_token() {
    let stage = Stage::new().await;
    for credentials in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Cookie: ce_login=wrong\r\n",
    ] {
        for path in [
            "/jobs",
            "/jobs/x",
            "/jobs/x/logs",
            "/agents",
            "/agents/a/logs",
            "/events",
        ] {
            let answer = get(stage.admin, path, credentials).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
            assert!(answer.contains(r#""code":"Unauthorized""#), "{answer}");
        }
        for path in ["/jobs", "/images/$export", "/jobs/x/$cancel"] {
            let answer = post(stage.admin, path, credentials, "{}").await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
        }
    }
    stage.stop().await;
}

#[tokio::test]
async fn bad_calls_are_told_what_is_wrong_with_them() {
    let stage = Stage::new().await;
    let bearer = bearer(&stage);
    let large = format!(r#"{{"operation":"inspect","x":"{}"}}"#, "y".repeat(70_000));
    for (path, body, status, part) in [
        ("/jobs", "{", "400", "not a JSON object"),
        (
            "/jobs",
            r#"{"operation":"inspct"}"#,
            "400",
            "expected one of",
        ),
        ("/jobs?agnt=a", "{}", "400", "agnt: unknown"),
        ("/images/$destroy", "{}", "404", "no such call"),
        ("/jobs/none/$cancel", "", "404", "no job"),
        ("/jobs/a%2Fb/$cancel", "", "400", "is no name"),
        ("/jobs", &large, "413", "longer than"),
    ] {
        let answer = post(stage.admin, path, &bearer, body).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(part), "{path}: {answer}");
    }
    let unknown = r#"{"operation":"export","outputStorageLocation":
        {"location":"smb://h/s","credentialId":"nobody"}}"#;
    let answer = post(stage.admin, "/jobs", &bearer, unknown).await;
    assert!(
        answer.contains("outputStorageLocation.credentialId"),
        "{answer}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn the_page_asks_for_the_token_and_then_shows_what_happens() {
    let stage = Stage::new().await;
    let form = get(stage.admin, "/", "").await;
    assert!(form.contains("type=\"password\""));
    assert!(header(&form, "content-security-policy").starts_with("default-src 'none'"));
    let token = stage.home().api_token().unwrap();
    let wrong = post(stage.admin, "/login", "", "token=wrong").await;
    assert!(wrong.starts_with("HTTP/1.1 401 "));
    let body = format!("token={}", token.expose_secret());
    let login = post(stage.admin, "/login", "", &body).await;
    assert!(login.starts_with("HTTP/1.1 303 "), "{login}");
    let cookie = header(&login, "set-cookie");
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let page = get(stage.admin, "/", &cookie).await;
    assert!(page.contains("/page.js") && !page.contains("http://") && !page.contains("https://"));

    // A login can look and change nothing.
    assert!(
        get(stage.admin, "/jobs", &cookie)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(
        post(stage.admin, "/jobs", &cookie, "{}")
            .await
            .starts_with("HTTP/1.1 401 ")
    );

    let mut events = send(stage.admin, "GET", "/events", &cookie, "").await;
    let id = stage.submit(r#"{"operation":"inspect"}"#).await;
    let _agent = Agent::of(&stage, "watched").await;
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !(seen.contains(&id) && seen.contains("watched")) {
        let read = events.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the events ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(seen.contains("event: changes"));
    drop(events);
    stage.stop().await;
}

#[tokio::test]
async fn the_orchestrators_address_speaks_tls_and_nothing_else() {
    let stage = Stage::new().await;
    let answer = get(stage.api.unwrap(), "/jobs", &bearer(&stage)).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    stage.stop().await;
}

fn bearer(stage: &Stage) -> String {
    let token = stage.home().api_token().unwrap();
    format!("Authorization: Bearer {}\r\n", token.expose_secret())
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    whole(send(address, "GET", path, headers, "").await).await
}

async fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> String {
    whole(send(address, "POST", path, headers, body).await).await
}

async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    // What is refused early need not be read to its end.
    let _ = stream.write_all(request.as_bytes()).await;
    stream
}

async fn whole(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // The same: the other side may have closed before it has read everything.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    let line = lines.find(|line| line.to_lowercase().starts_with(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {answer}"))
        .split_once(": ")
        .unwrap()
        .1
}
