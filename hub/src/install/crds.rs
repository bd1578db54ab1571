//! CustomResourceDefinitions: made, brought up to date, never taken back to an older version (ocm-wire §1.0).

use std::{cmp::Ordering, collections::BTreeMap};

use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::PostParams,
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use muster_crds::constants::annotations;

use crate::{
    error::Error,
    writer::{FIELD_MANAGER, Writer, what},
};

/// The version this hub puts on the definitions it installs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to do about a definition.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is what it should be, or newer software's.
    Leave,
    /// It is not there.
    Create(Box<CustomResourceDefinition>),
    /// It is older, or not what it should be.
    Replace(Box<CustomResourceDefinition>),
}

/// Decides about a definition: `wanted` of software `version`, and what is there.
pub fn decide(
    wanted: CustomResourceDefinition,
    there: Option<&CustomResourceDefinition>,
    version: &str,
) -> Decision {
    let stamp = (annotations::CRD_VERSION.to_owned(), version.to_owned());
    let Some(there) = there else {
        let mut wanted = wanted;
        wanted
            .metadata
            .annotations
            .get_or_insert_default()
            .extend([stamp]);
        return Decision::Create(Box::new(wanted));
    };
    let stamped = there
        .annotations()
        .get(annotations::CRD_VERSION)
        .map(String::as_str);
    let order = stamped.map(|stamped| compare(stamped, version));
    if order == Some(Ordering::Greater) {
        return Decision::Leave;
    }
    let mut next = there.clone();
    next.spec.group = wanted.spec.group;
    next.spec.scope = wanted.spec.scope;
    next.spec.names = wanted.spec.names;
    // Somebody's conversion webhook goes on converting. The list kind is the server's to fill in.
    if next.spec.names.list_kind.is_none() {
        next.spec.names.list_kind.clone_from(&there.spec.names.list_kind);
    }
    next.spec.versions = wanted.spec.versions;
    if order == Some(Ordering::Equal) && next.spec == there.spec {
        return Decision::Leave;
    }
    next.metadata.annotations.get_or_insert_default().extend([stamp]);
    next.metadata.managed_fields = None;
    Decision::Replace(Box::new(next))
}

/// Compares versions as semver does, as far as both are numbers; a pre-release is older than its release.
fn compare(one: &str, other: &str) -> Ordering {
    let parts = |version: &str| {
        let version = version.trim_start_matches('v');
        let version = version.split('+').next().unwrap_or_default();
        let (numbers, pre) = version.split_once('-').unwrap_or((version, ""));
        let numbers: Vec<u64> = numbers.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        (numbers, pre.to_owned())
    };
    let ((one, pre_one), (other, pre_other)) = (parts(one), parts(other));
    one.cmp(&other)
        .then_with(|| match (pre_one.is_empty(), pre_other.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => pre_one.cmp(&pre_other),
        })
}

/// Installs these definitions and waits until they are served.
pub async fn install(writer: &Writer, wanted: Vec<CustomResourceDefinition>) -> Result<(), Error> {
    try_join_all(wanted.into_iter().map(|wanted| one(writer, wanted))).await?;
    Ok(())
}

async fn one(writer: &Writer, wanted: CustomResourceDefinition) -> Result<(), Error> {
    let api = Api::<CustomResourceDefinition>::all(writer.client());
    let name = wanted.name_any();
    let subject = what::<CustomResourceDefinition>(&name);
    let there = writer
        .bounded(format!("read {subject}"), api.get_opt(&name))
        .await?;
    let current = match decide(wanted, there.as_ref(), VERSION) {
        Decision::Leave => there,
        Decision::Create(crd) => Some(writer.create(&api, &crd, &subject).await?),
        Decision::Replace(crd) => {
            tracing::info!(crd = name, version = VERSION, "updating");
            let parameters = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let request = api.replace(&name, &parameters, &crd);
            Some(writer.bounded(format!("update {subject}"), request).await?)
        }
    };
    if current.is_some_and(|crd| established(&crd)) {
        return Ok(());
    }
    match await_condition(api, &name, is_crd_established()).await {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::debug!(crd = name, error = %crate::error::innermost(&error), "watch broke");
            Err(Error::Several(format!(
                "cannot see {subject} established: the watch broke"
            )))
        }
    }
}

fn established(crd: &CustomResourceDefinition) -> bool {
    crd.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
        .collect::<BTreeMap<_, _>>()
        .get("Established")
        == Some(&"True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> CustomResourceDefinition {
        muster_crds::crds::hub().remove(0)
    }

    /// As a server gives it back.
    fn served(version: Option<&str>) -> CustomResourceDefinition {
        let mut crd = crd();
        crd.metadata.resource_version = Some("7".to_owned());
        if let Some(version) = version {
            let stamp = (annotations::CRD_VERSION.to_owned(), version.to_owned());
            crd.metadata.annotations.get_or_insert_default().extend([stamp]);
        }
        crd
    }

    #[test]
    fn definitions_are_made_updated_and_never_taken_back() {
        let Decision::Create(made) = decide(crd(), None, "1.2.0") else {
            panic!("not made")
        };
        assert_eq!(made.annotations()[annotations::CRD_VERSION], "1.2.0");
        // Another's, without a stamp, becomes ours even when it is the same.
        let Decision::Replace(next) = decide(crd(), Some(&served(None)), "1.2.0") else {
            panic!("not updated")
        };
        assert_eq!(next.resource_version().as_deref(), Some("7"));
        for (there, replaced) in [
            ("1.1.9", true),
            ("1.2.0", false),
            ("1.2.1", false),
            ("1.10.0", false),
            ("v1.2.0-rc1", true),
        ] {
            let decision = decide(crd(), Some(&served(Some(there))), "1.2.0");
            assert_eq!(matches!(decision, Decision::Replace(_)), replaced, "{there}");
        }
    }

    #[test]
    fn the_same_version_with_another_schema_is_put_right() {
        let mut there = served(Some("1.2.0"));
        there.spec.versions[0].served = false;
        assert!(matches!(
            decide(crd(), Some(&there), "1.2.0"),
            Decision::Replace(_)
        ));
        let mut newer = served(Some("2.0.0"));
        newer.spec.versions[0].served = false;
        assert_eq!(decide(crd(), Some(&newer), "1.2.0"), Decision::Leave);
    }
}
