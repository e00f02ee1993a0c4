use std::collections::BTreeMap;

use tagrelay_secret::{ExposeSecret as _, Secret};

use super::Cloud;

/// Variables of AWS SDKs (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).
pub(super) mod aws {
    pub(in super::super) const ROLE_ARN: &str = "AWS_ROLE_ARN";
    pub(in super::super) const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
    pub(in super::super) const SESSION_NAME: &str = "AWS_ROLE_SESSION_NAME";
    pub(in super::super) const CONTAINER_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    pub(in super::super) const CONTAINER_TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    pub(in super::super) const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
    pub(in super::super) const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
    pub(in super::super) const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
    pub(in super::super) const REGION: &str = "AWS_REGION";
}

/// Variables of Google's libraries (<https://cloud.google.com/docs/authentication/application-default-credentials>).
pub(super) mod google {
    pub(in super::super) const CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
    pub(in super::super) const METADATA_HOST: &str = "GCE_METADATA_HOST";
}

/// Variables of Azure's workload identity and of its SDKs
/// (<https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html>).
pub(super) mod azure {
    pub(in super::super) const CLIENT_ID: &str = "AZURE_CLIENT_ID";
    pub(in super::super) const TENANT_ID: &str = "AZURE_TENANT_ID";
    pub(in super::super) const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    pub(in super::super) const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
    pub(in super::super) const METADATA_HOST: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";
}

const NAMES: [&str; 16] = [
    aws::ROLE_ARN,
    aws::TOKEN_FILE,
    aws::SESSION_NAME,
    aws::CONTAINER_URI,
    aws::CONTAINER_TOKEN_FILE,
    aws::KEY_ID,
    aws::SECRET_KEY,
    aws::SESSION_TOKEN,
    aws::REGION,
    google::CREDENTIALS,
    google::METADATA_HOST,
    azure::CLIENT_ID,
    azure::TENANT_ID,
    azure::TOKEN_FILE,
    azure::AUTHORITY,
    azure::METADATA_HOST,
];

/// The environment variables in which clusters and SDKs describe a cloud identity. An empty variable counts as absent.
///
/// `Debug` shows names and no values.
#[derive(Debug, Clone, Default)]
pub struct CloudEnvironment(BTreeMap<&'static str, Secret>);

impl CloudEnvironment {
    /// Reads the variables once; they do not change while a process runs.
    pub fn read(lookup: &dyn Fn(&str) -> Result<String, std::env::VarError>) -> Self {
        Self(NAMES.iter().filter_map(|name| Some((*name, Secret::from_lookup(name, lookup).ok()?))).collect())
    }

    /// Returns the value of a variable.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.reveal().ok().map(|text| text.expose_secret().to_owned())
    }

    /// Returns the variables that describe an identity in this cloud. Without any, only its metadata server can have one.
    pub fn identity_variables(&self, cloud: Cloud) -> Vec<&'static str> {
        let names: &[&str] = match cloud {
            Cloud::Aws => &[aws::ROLE_ARN, aws::TOKEN_FILE, aws::CONTAINER_URI, aws::KEY_ID],
            Cloud::Google => &[google::CREDENTIALS, google::METADATA_HOST],
            Cloud::Azure => &[azure::CLIENT_ID, azure::TOKEN_FILE],
        };
        names.iter().filter_map(|name| self.0.get_key_value(name).map(|(name, _)| *name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_values_and_empty_variables_are_absent() {
        let environment = CloudEnvironment::read(&|name| match name {
            "AWS_SECRET_ACCESS_KEY" => Ok("hunter2".to_owned()),
            "AWS_ROLE_ARN" => Ok(String::new()),
            _ => Err(std::env::VarError::NotPresent),
        });
        assert!(!format!("{environment:?}").contains("hunter2"));
        assert_eq!(environment.identity_variables(Cloud::Aws), Vec::<&str>::new());
    }
}
