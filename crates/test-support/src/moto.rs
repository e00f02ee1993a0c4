//! moto, a reimplementation of AWS: IAM, STS and ECR for one test.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::peer;

/// Time limit for the start: it loads every service of AWS.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The account of all its resources.
pub const ACCOUNT: &str = "123456789012";

pub struct Moto {
    /// `http://127.0.0.1:41873`.
    pub url: String,
    process: Child,
}

impl Moto {
    /// Starts moto. From the request with this number on (from 0), it verifies signatures and permissions.
    ///
    /// Returns `None`, with a message, if it is not installed.
    pub fn start(first_verified: usize) -> Option<Self> {
        let process = peer::tool("moto_server")?
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", first_verified.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Ended by `drop` from here on.
        let mut moto = Self { url: String::new(), process };
        let log = moto.process.stderr.take().unwrap();
        let (said, heard) = mpsc::channel();
        // Reads the log to its end, so that the program never blocks on it.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        while let Ok(line) = heard.recv_timeout(START_LIMIT) {
            if let Some((_, url)) = line.split_once("Running on ") {
                url.trim().clone_into(&mut moto.url);
                return Some(moto);
            }
        }
        panic!("moto did not begin to listen");
    }

    /// Calls an action of IAM.
    pub async fn iam(&self, parameters: &[(&str, &str)]) {
        let form = url::form_urlencoded::Serializer::new(String::new());
        let body = { form }.append_pair("Version", "2010-05-08").extend_pairs(parameters).finish();
        // moto finds the service in the scope of the signature, which it does not verify yet.
        let scope = "Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x";
        let request = reqwest::Client::builder().no_proxy().build().unwrap().post(&self.url);
        let request = request.header("authorization", format!("AWS4-HMAC-SHA256 {scope}")).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    }

    /// Creates a role, which takes one request.
    pub async fn create_role(&self, name: &str) -> String {
        let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
        self.iam(&[("Action", "CreateRole"), ("RoleName", name), ("AssumeRolePolicyDocument", policy)]).await;
        format!("arn:aws:iam::{ACCOUNT}:role/{name}")
    }

    /// Allows an action to a role, which takes one request.
    pub async fn allow(&self, role: &str, action: &str) {
        let statement = format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"*"}}"#);
        let policy = format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
        let name = ("PolicyName", "pull");
        self.iam(&[("Action", "PutRolePolicy"), ("RoleName", role), name, ("PolicyDocument", &policy)]).await;
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
