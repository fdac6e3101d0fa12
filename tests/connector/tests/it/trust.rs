//! Who gets in, and who does not.

use std::time::Duration;

use ce_connector::authority::Authority;
use ce_connector::ids::UnixMillis;
use ce_proto::v1::{connector_message, goodbye};
use rcgen::{CertificateParams, KeyPair};
use tonic::Code;
use tonic::transport::Identity;

use crate::agent::{Agent, Call, hello};
use crate::stage::{Stage, made, until};

const DAY: u64 = 86_400_000;

#[tokio::test]
async fn a_registered_certificate_opens_a_session_under_its_own_name_only() {
    let stage = Stage::new().await;
    let agent = Agent::of(&stage, "a").await;
    assert_eq!(agent.welcome.agent_id, "a");
    assert_eq!(agent.welcome.heartbeat_interval_seconds, 60);
    let mut hello = hello("state-0123456789");
    hello.agent_id = "b".into();
    let call = Call::new(&stage, Some(stage.identity("a"))).saying(hello);
    assert_eq!(call.refused().await.code(), Code::PermissionDenied);
    stage.stop().await;
}

#[tokio::test]
async fn nobody_gets_in_without_certificate_and_token() {
    let stage = Stage::new().await;
    let status = Call::new(&stage, None).refused().await;
    assert_eq!(status.code(), Code::Unauthenticated);
    stage.stop().await;
}

#[tokio::test]
async fn foreign_expired_and_early_certificates_get_no_connection() {
    let stage = Stage::new().await;
    let authority = stage.home().authority().unwrap();
    let elsewhere = made();
    let foreign = Authority::open(elsewhere.path()).unwrap();
    let now = UnixMillis::now();
    let early = now.plus(2 * DAY);
    let expired = UnixMillis(now.0 - 100 * DAY);
    for (what, identity) in [
        ("foreign", stage.identity_of("a", &foreign, now)),
        ("early", stage.identity_of("a", &authority, early)),
        ("expired", stage.identity_of("a", &authority, expired)),
    ] {
        let status = Call::new(&stage, Some(identity)).refused().await;
        // TLS ends it, before anything of a session is looked at.
        let told = format!("{status:?}");
        assert!(
            !matches!(
                status.code(),
                Code::PermissionDenied | Code::Unauthenticated
            ),
            "{what}: {told}"
        );
    }
    assert!(!format!("{}", stage.client().get("/agents").await.unwrap()).contains("connected"));
    stage.stop().await;
}

#[tokio::test]
async fn an_agent_with_another_authority_does_not_take_the_server() {
    let stage = Stage::new().await;
    let elsewhere = made();
    let mut call = Call::new(&stage, Some(stage.identity("a")));
    call.ca = Authority::open(elsewhere.path()).unwrap().pem().to_owned();
    let status = call.refused().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("InvalidCertificate"),
        "{status:?}"
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_registered_any_more_is_refused() {
    let stage = Stage::new().await;
    let identity = stage.identity("a");
    let mut open = Call::new(&stage, Some(identity.clone()))
        .open()
        .await
        .unwrap();
    stage
        .home()
        .registry()
        .unwrap()
        .remove(&"a".parse().unwrap())
        .unwrap();
    let status = Call::new(&stage, Some(identity)).refused().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    // And the session that is open ends with its next heartbeat.
    open.say(ce_proto::v1::agent_message::Body::Heartbeat(
        Default::default(),
    ))
    .await;
    assert_eq!(open.ended().await.code(), Code::PermissionDenied);
    stage.stop().await;
}

#[tokio::test]
async fn a_token_is_exchanged_for_one_key_only() {
    let stage = Stage::new().await;
    let registry = stage.home().registry().unwrap();
    let now = UnixMillis::now();
    let token = registry
        .new_token(&"a".parse().unwrap(), now.plus(60_000), now)
        .unwrap();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());

    let mut first = exchange(&stage, &token, &key).open().await.unwrap();
    let chain = first.welcome.certificate_chain.clone();
    assert_eq!(first.welcome.agent_id, "a");
    let connector_message::Body::Goodbye(farewell) = first.next().await.unwrap() else {
        panic!("no Goodbye");
    };
    assert_eq!(farewell.reason(), goodbye::Reason::Enrolled);
    assert_eq!(first.ended().await.code(), Code::Ok);

    // The answer may have been lost: the same key gets another one, a second key none.
    assert!(exchange(&stage, &token, &key).open().await.is_ok());
    let replayed = exchange(&stage, &token, &other).refused().await;
    assert_eq!(replayed.code(), Code::Unauthenticated);
    assert_eq!(replayed.message(), "the token has been used");

    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        base64(&chain[0])
    );
    let identity = Identity::from_pem(pem, key.serialize_pem());
    let agent = Call::new(&stage, Some(identity)).open().await.unwrap();
    assert_eq!(agent.welcome.agent_id, "a");
    stage.stop().await;
}

#[tokio::test]
async fn unknown_and_expired_tokens_and_bad_requests_are_refused() {
    let stage = Stage::new().await;
    let registry = stage.home().registry().unwrap();
    let now = UnixMillis::now();
    let name = "a".parse().unwrap();
    let key = KeyPair::generate().unwrap();
    let unknown = exchange(&stage, &"0".repeat(64), &key).refused().await;
    assert_eq!(unknown.code(), Code::Unauthenticated);
    let short = registry
        .new_token(&name, UnixMillis(now.0 + 300), now)
        .unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let expired = exchange(&stage, &short, &key).refused().await;
    assert_eq!(expired.message(), "the token has expired");

    let good = registry.new_token(&name, now.plus(60_000), now).unwrap();
    for request in [vec![], vec![0x30; 100], vec![0; 5000]] {
        let mut hello = hello("state-0123456789");
        hello.certificate_request = request;
        let mut call = Call::new(&stage, None).saying(hello);
        call.token = Some(good.to_string());
        assert_eq!(call.refused().await.code(), Code::InvalidArgument);
    }
    // None of them used it up.
    assert!(exchange(&stage, &good, &key).open().await.is_ok());
    stage.stop().await;
}

#[tokio::test]
async fn secrets_are_nowhere_in_the_folder_but_where_they_belong() {
    let stage = Stage::new().await;
    stage.put_into_wallet("[credentials.c]\nusername = 'u'\npassword = 'hunter2-hunter2'\n");
    let registry = stage.home().registry().unwrap();
    let now = UnixMillis::now();
    let token = registry
        .new_token(&"t".parse().unwrap(), now.plus(60_000), now)
        .unwrap();
    let mut agent = Agent::of(&stage, "a").await;
    let id = stage
        .submit(
            r#"{"operation":"export","disk":{"lun":1},"outputImageFilename":"i",
               "outputStorageLocation":{"location":"smb://h/s","credentialId":"c"}}"#,
        )
        .await;
    let start = agent.job().await;
    let credentials = start.credentials.clone().unwrap();
    assert_eq!(credentials.password, "hunter2-hunter2");
    agent.accept(&start).await;
    agent.finish(&start).await;
    agent.acknowledged().await;
    let shown = stage.wait_for(&id, "complete").await.to_string();
    assert!(
        shown.contains(r#""credentialId":"c""#) && !shown.contains("hunter2"),
        "{shown}"
    );
    let folder = stage.stop().await;
    let mut looked_at = 0;
    for path in files(folder.path()) {
        let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
        assert_eq!(mode & 0o077, 0, "{} is open to others", path.display());
        let bytes = std::fs::read(&path).unwrap();
        let has = |secret: &str| {
            bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes())
        };
        let is_wallet = path.ends_with("wallet.toml");
        assert!(!has("hunter2") || is_wallet, "{}", path.display());
        assert!(!has(&token), "{}", path.display());
        looked_at += 1;
    }
    assert!(looked_at >= 7, "{looked_at}");
}

#[tokio::test]
async fn a_certificate_is_renewed_within_a_session() {
    let stage = Stage::new().await;
    let key = KeyPair::generate().unwrap();
    let mut hello = hello("state-0123456789");
    hello.certificate_request = request(&key);
    let identity = stage.identity("a");
    let renewed = Call::new(&stage, Some(identity))
        .saying(hello)
        .open()
        .await
        .unwrap();
    assert_eq!(renewed.welcome.certificate_chain.len(), 1);
    let connected = until(async || {
        let agents = stage.client().get("/agents").await.unwrap();
        (agents["items"][0]["session"]["connected"] == true).then_some(())
    });
    connected.await;
    stage.stop().await;
}

fn exchange(stage: &Stage, token: &str, key: &KeyPair) -> Call {
    let mut hello = hello("state-0123456789");
    hello.certificate_request = request(key);
    let mut call = Call::new(stage, None).saying(hello);
    call.token = Some(token.to_owned());
    call
}

fn request(key: &KeyPair) -> Vec<u8> {
    let params = CertificateParams::default();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() {
                digit as char
            } else {
                '='
            });
        }
    }
    text
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
