//! The registry hosts of each cloud.

use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// A cloud whose registries accept short-lived accounts of the pod's own identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon ECR.
    Aws,
    /// Google Artifact Registry and Container Registry.
    Google,
    /// Azure Container Registry.
    Azure,
}

impl Cloud {
    /// All clouds, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Aws, Self::Google, Self::Azure];

    /// Returns its value of `login` in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Google => "google",
            Self::Azure => "azure",
        }
    }

    /// Returns the cloud that a host belongs to. A host with a port belongs to none.
    pub fn of_host(host: &str) -> Option<Self> {
        if EcrHost::parse(host).is_some() {
            return Some(Self::Aws);
        }
        let is_below = |domain: &str| {
            let label = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
            label.is_some_and(is_label)
        };
        if host == "gcr.io" || is_below("gcr.io") || (is_below("pkg.dev") && host.ends_with("-docker.pkg.dev")) {
            return Some(Self::Google);
        }
        ["azurecr.io", "azurecr.cn", "azurecr.us"].into_iter().any(is_below).then_some(Self::Azure)
    }

    /// Returns examples of its hosts for messages.
    pub fn example_hosts(self) -> &'static str {
        match self {
            Self::Aws => "\"*.dkr.ecr.*.amazonaws.com\" or \"public.ecr.aws\"",
            Self::Google => "\"*-docker.pkg.dev\" or \"*.gcr.io\"",
            Self::Azure => "\"*.azurecr.io\"",
        }
    }

    /// Returns the cloud of a host whose images need an account. Those of `public.ecr.aws` do not.
    pub(in crate::registry) fn of_private_host(host: &str) -> Option<Self> {
        Self::of_host(host).filter(|_| host != PUBLIC_ECR)
    }
}

/// Writes the value of `login`.
impl Display for Cloud {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Cloud {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|cloud| cloud.as_str() == text).ok_or(())
    }
}

const PUBLIC_ECR: &str = "public.ecr.aws";

/// The domains of ECR with the domain of the other services of the same partition, as in Amazon's credential helper
/// (<https://github.com/awslabs/amazon-ecr-credential-helper/blob/main/ecr-login/api/client.go>).
const ECR_DOMAINS: [(&str, &str); 9] = [
    ("amazonaws.com", "amazonaws.com"),
    ("amazonaws.com.cn", "amazonaws.com.cn"),
    ("amazonaws.eu", "amazonaws.eu"),
    ("on.aws", "amazonaws.com"),
    ("on.amazonwebservices.com.cn", "amazonaws.com.cn"),
    ("sc2s.sgov.gov", "sc2s.sgov.gov"),
    ("c2s.ic.gov", "c2s.ic.gov"),
    ("cloud.adc-e.uk", "cloud.adc-e.uk"),
    ("csp.hci.ic.gov", "csp.hci.ic.gov"),
];

/// A registry host of AWS with the services that issue its accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EcrHost {
    /// `eu-west-1`.
    pub(super) region: String,
    /// The host of ECR's API.
    pub(super) api: String,
    pub(super) is_public: bool,
    /// The domain of other services, such as STS.
    pub(super) domain: &'static str,
}

impl EcrHost {
    /// Reads `123456789012.dkr.ecr.eu-west-1.amazonaws.com` and its variants; `None`: another host.
    pub(super) fn parse(host: &str) -> Option<Self> {
        if host == PUBLIC_ECR {
            // The public registry has its API in one region
            // (<https://docs.aws.amazon.com/AmazonECR/latest/public/public-registry-auth.html>).
            let region = "us-east-1".to_owned();
            let api = format!("api.ecr-public.{region}.amazonaws.com");
            return Some(Self { region, api, is_public: true, domain: "amazonaws.com" });
        }
        let (account, rest) = host.split_once(".dkr")?;
        if account.is_empty() || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let rest = rest.strip_prefix(".ecr").or_else(|| rest.strip_prefix("-ecr"))?;
        let (is_fips, rest) = rest.strip_prefix("-fips").map_or((false, rest), |rest| (true, rest));
        let (region, own_domain) = rest.strip_prefix('.')?.split_once('.')?;
        let (_, domain) = ECR_DOMAINS.into_iter().find(|(domain, _)| *domain == own_domain)?;
        let prefix = if is_fips { "ecr-fips" } else { "api.ecr" };
        let api = format!("{prefix}.{region}.{domain}");
        is_label(region).then(|| Self { region: region.to_owned(), api, is_public: false, domain })
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_each_cloud_are_recognised() {
        for (cloud, hosts) in [
            (
                Cloud::Aws,
                &[
                    "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                    "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                    "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                    "123456789012.dkr-ecr.eu-west-1.on.aws",
                    "public.ecr.aws",
                ][..],
            ),
            (Cloud::Google, &["europe-docker.pkg.dev", "europe-west3-docker.pkg.dev", "gcr.io", "eu.gcr.io"]),
            (Cloud::Azure, &["uyou.azurecr.io", "uyou.azurecr.cn", "uyou.azurecr.us"]),
        ] {
            for host in hosts {
                assert_eq!(Cloud::of_host(host), Some(cloud), "{host}");
            }
        }
    }

    #[test]
    fn similar_hosts_of_other_owners_are_not() {
        for host in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com",
            "evil.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu/west.amazonaws.com",
            "bucket.s3.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:8443",
            "evil-gcr.io",
            "evilgcr.io",
            "a.b.gcr.io",
            "python.pkg.dev",
            "docker.pkg.dev",
            "azurecr.io",
            "evilazurecr.io",
            "a.b.azurecr.io",
            "uyou.azurecr.io.evil.example",
            "docker.io",
        ] {
            assert_eq!(Cloud::of_host(host), None, "{host}");
        }
    }

    #[test]
    fn ecr_host_names_its_services() {
        let api = |host: &str| EcrHost::parse(host).map(|host| (host.region, host.api, host.domain)).unwrap();
        let services = |region: &str, api: &str, domain: &'static str| (region.to_owned(), api.to_owned(), domain);
        assert_eq!(
            api("1.dkr.ecr.cn-north-1.amazonaws.com.cn"),
            services("cn-north-1", "api.ecr.cn-north-1.amazonaws.com.cn", "amazonaws.com.cn")
        );
        assert_eq!(
            api("1.dkr-ecr.eu-west-1.on.aws"),
            services("eu-west-1", "api.ecr.eu-west-1.amazonaws.com", "amazonaws.com")
        );
        assert_eq!(
            api("1.dkr.ecr-fips.us-east-1.amazonaws.com"),
            services("us-east-1", "ecr-fips.us-east-1.amazonaws.com", "amazonaws.com")
        );
    }
}
