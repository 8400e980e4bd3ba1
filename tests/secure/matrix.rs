//! Every RPC × every role × no, bad, expired and good credentials, through a real server, by gRPC and
//! by gRPC-Web.

use std::collections::BTreeSet;

use headhunt::{
    access::{Need, RPCS, Role, Roles, mint},
    rpc::proto,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Code, Request, Status, client::Grpc, service::interceptor::InterceptedService,
    transport::Channel,
};
use tonic_prost::ProstCodec;

use super::site::{Says, Site, held, token};
use crate::common::{server::TestServer, within};

/// Every method of the services that the server has.
fn methods() -> BTreeSet<String> {
    let sets = [
        proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut methods = BTreeSet::new();
    for set in sets {
        for file in FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!(
                        "/{}.{}/{}",
                        file.package(),
                        service.name(),
                        method.name()
                    ));
                }
            }
        }
    }
    methods
}

#[test]
fn the_table_has_every_rpc_and_no_other() {
    let table: BTreeSet<String> = RPCS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(table.len(), RPCS.len(), "an RPC stands twice in the table");
    assert_eq!(table, methods());
    assert!(table.len() >= 26, "{table:?}");
}

/// The policy in other words than the table's, so that a slip there does not pass as what was meant.
#[test]
fn what_changes_anything_needs_its_one_role() {
    for (path, need) in RPCS {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
        let reads = ["List", "Get", "Follow"]
            .iter()
            .any(|word| method.starts_with(word));
        let expected = match service {
            "headhunt.v1.DetectionService" if !reads => Need::OneOf(Roles::of(&[Role::Detect])),
            "headhunt.v1.AdminService" if method == "ListProfiles" => Need::OneOf(Roles::ALL),
            "headhunt.v1.AdminService" if reads => {
                Need::OneOf(Roles::of(&[Role::Admin, Role::Observe]))
            }
            "headhunt.v1.AdminService" => Need::OneOf(Roles::of(&[Role::Admin])),
            "grpc.health.v1.Health" => Need::Nothing,
            _ => Need::OneOf(Roles::ALL),
        };
        assert_eq!(*need, expected, "{path}");
    }
}

/// What a call with an empty message comes to: the status, or OK with the first answer.
async fn call(channel: &Channel, path: &str, says: Option<String>) -> Status {
    let way = InterceptedService::new(channel.clone(), Says(says));
    let mut grpc = Grpc::new(way);
    let path = path.to_owned().try_into().unwrap();
    let asked = async {
        grpc.ready().await.unwrap();
        let codec: ProstCodec<(), ()> = ProstCodec::default();
        let mut answers = grpc
            .server_streaming(Request::new(()), path, codec)
            .await?
            .into_inner();
        // Fields of the answer are of no matter here.
        answers.message().await.map(drop)
    };
    within("a call", asked)
        .await
        .err()
        .unwrap_or(Status::ok(""))
}

fn tokens() -> String {
    let mut text = String::new();
    for role in Role::ALL {
        text += &held(role.as_str(), &[role], false);
        text += &held(&format!("old-{}", role.as_str()), &[role], true);
    }
    text
}

fn expected(need: Need, role: Role) -> Option<Code> {
    match need {
        Need::OneOf(roles) if !roles.meets(Roles::of(&[role])) => Some(Code::PermissionDenied),
        _ => None,
    }
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_asks_every_caller_for_what_the_table_says() {
    let site = Site::new();
    site.write_tokens(&tokens());
    let server = TestServer::start(&site.toml(false, true, false)).await;
    let channel = server.channel().await;
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    let mut messages = BTreeSet::new();
    for (path, need) in RPCS {
        let open = *need == Need::Nothing;
        let mut bad = vec![
            ("none", None),
            ("no bearer", Some(token("admin"))),
            ("basic", Some(format!("Basic {}", token("admin")))),
            ("unknown", bearer(&mint())),
            ("empty", bearer("")),
            ("a digest", bearer("00")),
        ];
        for role in Role::ALL {
            bad.push(("expired", bearer(&token(&format!("old-{}", role.as_str())))));
        }
        for (what, says) in bad {
            let status = call(&channel, path, says).await;
            if open {
                assert!(!is_refusal(status.code()), "{path} {what}: {status:?}");
            } else {
                assert_eq!(status.code(), Code::Unauthenticated, "{path} {what}");
                assert_eq!(
                    status.metadata().get("www-authenticate").unwrap(),
                    "Bearer",
                    "{path} {what}"
                );
                messages.insert(status.message().to_owned());
            }
        }
        for role in Role::ALL {
            let status = call(&channel, path, bearer(&token(role.as_str()))).await;
            match expected(*need, role) {
                Some(code) => assert_eq!(status.code(), code, "{path} {role:?}: {status:?}"),
                None => assert!(!is_refusal(status.code()), "{path} {role:?}: {status:?}"),
            }
        }
    }
    // Missing, unknown and expired look alike.
    assert_eq!(messages.len(), 1, "{messages:?}");

    // What is not in the table is refused to everybody.
    for path in [
        "/headhunt.v1.DetectionService/Reset",
        "/other.Service/Call",
        "/",
    ] {
        assert_eq!(
            call(&channel, path, None).await.code(),
            Code::Unauthenticated
        );
        for role in Role::ALL {
            let status = call(&channel, path, bearer(&token(role.as_str()))).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_file_nobody_is_asked() {
    let server = TestServer::start("").await;
    let channel = server.channel().await;
    for (path, _) in RPCS {
        let status = call(&channel, path, None).await;
        assert!(!is_refusal(status.code()), "{path}: {status:?}");
    }
    server.stop().await;
}

/// The status of a gRPC-Web call over HTTP/1.1; `None` where an answer begins without one.
async fn web(server: &TestServer, path: &str, token: Option<&str>) -> Option<i32> {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let authorization = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc-web+proto\r\n{authorization}content-length: 5\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 5]).await.unwrap();
    let mut answer = Vec::new();
    let found = async {
        let mut piece = [0; 4096];
        loop {
            let n = stream.read(&mut piece).await.unwrap();
            answer.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&answer).to_lowercase();
            if let Some(at) = text.find("grpc-status:") {
                let rest = text[at + 12..].trim_start();
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                if rest.len() > digits.len() {
                    return Some(digits.parse().unwrap());
                }
            }
            if n == 0 {
                return None;
            }
            // Streams that stay open have begun with their head.
            if path.contains("Health/Watch") && text.contains("\r\n\r\n") {
                return None;
            }
        }
    };
    within("a web call", found).await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_goes_through_the_same_door() {
    let site = Site::new();
    site.write_tokens(&tokens());
    let server = TestServer::start(&site.toml(false, true, false)).await;
    let refusals = [Code::Unauthenticated as i32, Code::PermissionDenied as i32];
    for (path, need) in RPCS {
        let without = web(&server, path, None).await;
        let unknown = web(&server, path, Some("hh_0")).await;
        if *need == Need::Nothing {
            assert!(
                !without.is_some_and(|code| refusals.contains(&code)),
                "{path}"
            );
        } else {
            assert_eq!(without, Some(refusals[0]), "{path}");
            assert_eq!(unknown, Some(refusals[0]), "{path}");
        }
        for role in Role::ALL {
            if expected(*need, role).is_some() {
                let status = web(&server, path, Some(&token(role.as_str()))).await;
                assert_eq!(status, Some(refusals[1]), "{path} {role:?}");
            }
        }
    }
    let info = "/headhunt.v1.DetectionService/GetInfo";
    assert_eq!(web(&server, info, Some(&token("detect"))).await, Some(0));
    server.stop().await;
}
