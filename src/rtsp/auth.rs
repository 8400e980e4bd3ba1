//! Answers to 401: digest before basic, by http-auth.

use http_auth::{PasswordClient, PasswordParams, digest};

use super::{Failure, FailureKind};
use crate::net::Credentials;

/// Answers challenges with a user name and a password, if there are any.
pub(super) struct Authenticator {
    credentials: Option<Credentials>,
    client: Option<PasswordClient>,
}

impl Authenticator {
    pub fn new(credentials: Option<Credentials>) -> Self {
        Authenticator {
            credentials,
            client: None,
        }
    }

    /// The `Authorization` header of a request, once the camera has asked for it.
    pub fn header(&mut self, method: &str, uri: &str) -> Result<Option<String>, Failure> {
        self.respond(|client, credentials| {
            // With a body there would be a choice, and some cameras that offer auth-int have
            // never tried it.
            let only_int = matches!(client, PasswordClient::Digest(d)
                if !(d.qop() & digest::Qop::Auth));
            client.respond(&PasswordParams {
                username: &credentials.username,
                password: &credentials.password,
                uri,
                method,
                body: only_int.then_some(&[]),
            })
        })
    }

    fn respond(
        &mut self,
        answer: impl FnOnce(&mut PasswordClient, &Credentials) -> Result<String, String>,
    ) -> Result<Option<String>, Failure> {
        let (Some(client), Some(credentials)) = (&mut self.client, &self.credentials) else {
            return Ok(None);
        };
        // The library's message may repeat the user name.
        let mut header = answer(client, credentials).map_err(|_| {
            Failure::protocol("the camera's challenge for a password cannot be answered")
        })?;
        if let PasswordClient::Digest(d) = client
            && d.rfc2069_compat()
        {
            // Without a qop the library leaves the algorithm out, as MD5 may be.
            match d.algorithm() {
                digest::Algorithm::Sha256 => header.push_str(", algorithm=SHA-256"),
                digest::Algorithm::Sha512Trunc256 => header.push_str(", algorithm=SHA-512-256"),
                _ => {}
            }
        }
        Ok(Some(header))
    }

    /// Takes the challenges of a 401. Gives whether the camera says that the answer before was
    /// merely out of date.
    pub fn challenged(&mut self, challenges: &[String]) -> Result<bool, Failure> {
        if self.credentials.is_none() {
            return Err(Failure::new(
                FailureKind::Unauthorized,
                "the camera asks for a user name and a password, and its URL has none",
            ));
        }
        let client = challenges
            .iter()
            .fold(PasswordClient::builder(), |builder, c| {
                builder.challenges(c)
            })
            .build()
            .map_err(|_| {
                Failure::new(
                    FailureKind::Unauthorized,
                    "the camera asks for a password in a way that is neither digest nor basic",
                )
            })?;
        let stale = matches!(&client, PasswordClient::Digest(d) if d.stale());
        self.client = Some(client);
        Ok(stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(username: &str, password: &str) -> Authenticator {
        Authenticator::new(Some(Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
        }))
    }

    fn fixed(authenticator: &mut Authenticator, uri: &str, cnonce: &str) -> String {
        let answer = authenticator.respond(|client, credentials| {
            let PasswordClient::Digest(d) = client else {
                panic!("not digest");
            };
            d.respond_with_testing_cnonce(
                &PasswordParams {
                    username: &credentials.username,
                    password: &credentials.password,
                    uri,
                    method: "GET",
                    body: None,
                },
                cnonce,
            )
        });
        answer.unwrap().unwrap()
    }

    /// RFC 2617, 3.5.
    #[test]
    fn the_example_of_rfc_2617() {
        let mut a = authenticator("Mufasa", "Circle Of Life");
        let challenge = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
            nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
            opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        assert!(!a.challenged(&[challenge.to_owned()]).unwrap());
        let header = fixed(&mut a, "/dir/index.html", "0a4f113b");
        assert!(
            header.contains("response=\"6629fae49393a05397450978507c4ef1\""),
            "{header}"
        );
    }

    /// RFC 7616, 3.9.1, with MD5 and with SHA-256, whichever the camera names first.
    #[test]
    fn the_examples_of_rfc_7616() {
        let challenge = |algorithm: &str| {
            format!(
                "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", \
                 algorithm={algorithm}, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            )
        };
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let md5 = "8ca523f5e9506fed4657c9700eebdbec";
        let sha = "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1";
        for (algorithms, response) in [(["MD5", "SHA-256"], md5), (["SHA-256", "MD5"], sha)] {
            let mut a = authenticator("Mufasa", "Circle of Life");
            let challenges = algorithms.map(challenge);
            a.challenged(&challenges).unwrap();
            let header = fixed(&mut a, "/dir/index.html", cnonce);
            assert!(
                header.contains(&format!("response=\"{response}\"")),
                "{header}"
            );
        }
    }

    #[test]
    fn digest_goes_before_basic_and_junk_is_passed_over() {
        for challenges in [
            &["Basic realm=\"a\"", "Digest realm=\"a\", nonce=\"b\""][..],
            &["Digest realm=\"a\", nonce=\"b\"", "Basic realm=\"a\""],
            &["Negotiate oRkwF6ADCg==", "Digest realm=\"a\", nonce=\"b\""],
            &["Basic realm=\"a\", Digest realm=\"a\", nonce=\"b\", stale=\"FALSE\""],
            &[
                "Digest realm=\"a\", nonce=\"b\", algorithm=FUTURE",
                "Digest realm=\"a\", nonce=\"b\", algorithm=\"MD5\"",
            ],
        ] {
            let challenges: Vec<String> = challenges.iter().map(|c| (*c).to_owned()).collect();
            let mut a = authenticator("u", "p");
            assert!(!a.challenged(&challenges).unwrap());
            let header = a.header("DESCRIBE", "rtsp://cam/").unwrap().unwrap();
            assert!(header.starts_with("Digest "), "{header}");
        }
    }

    #[test]
    fn basic_is_answered_where_nothing_else_is_offered() {
        let mut a = authenticator("Aladdin", "open sesame");
        assert_eq!(
            a.header("OPTIONS", "rtsp://cam/").unwrap(),
            None,
            "not asked yet"
        );
        a.challenged(&["Basic realm=\"a\"".to_owned()]).unwrap();
        assert_eq!(
            a.header("OPTIONS", "rtsp://cam/").unwrap().unwrap(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }

    #[test]
    fn a_digest_without_qop_names_its_algorithm_unless_it_is_the_default() {
        for (algorithm, named) in [("MD5", false), ("SHA-256", true)] {
            let mut a = authenticator("u", "p");
            let challenge = format!("Digest realm=\"a\", nonce=\"b\", algorithm={algorithm}");
            a.challenged(&[challenge]).unwrap();
            let header = a.header("PLAY", "rtsp://cam/").unwrap().unwrap();
            assert_eq!(header.contains("algorithm=SHA-256"), named, "{header}");
            assert!(!header.contains("qop"));
        }
    }

    #[test]
    fn stale_is_told_and_impossible_challenges_are_refused() {
        let mut a = authenticator("u", "p");
        let stale = "Digest realm=\"a\", nonce=\"b\", stale=TRUE".to_owned();
        assert!(a.challenged(std::slice::from_ref(&stale)).unwrap());
        for challenges in [
            vec![],
            vec!["Bearer realm=\"a\"".to_owned()],
            vec!["=".to_owned()],
        ] {
            let failure = a.challenged(&challenges).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Unauthorized);
        }
        let failure = Authenticator::new(None).challenged(&[stale]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unauthorized);
    }
}
