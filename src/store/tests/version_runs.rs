use super::*;
use crate::domain::VersionRun;

#[tokio::test]
async fn runs_of_removed_environments_are_forgotten() {
    let fixture = Fixture::new().await;
    let now = fixture.store.clock().now();
    let run = |environment: &str| VersionRun {
        environment: environment.to_owned(),
        application: "argocd/user-service".to_owned(),
        repository: repository(),
        version: version("a"),
        first_seen_at: now,
        healthy_since: Some(now),
        observed_at: now,
    };
    fixture.store.record_version_runs(vec![run("staging"), run("qa")], Vec::new()).await.unwrap();
    fixture.store.forget_version_runs_elsewhere(&["staging".to_owned()]).await.unwrap();
    assert_eq!(fixture.store.version_runs("staging").await.unwrap().len(), 1);
    assert!(fixture.store.version_runs("qa").await.unwrap().is_empty());
}
