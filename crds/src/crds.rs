//! The CustomResourceDefinitions, made from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion, CustomResourceSubresourceStatus, CustomResourceSubresources,
    CustomResourceValidation,
};
use kube::{CustomResourceExt, Resource, core::ObjectMeta};
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::{about, addon, cluster, multicluster, schema::structural, work};

/// What the hub's API server always needs (ocm-wire §1.0).
pub fn hub() -> Vec<CustomResourceDefinition> {
    use addon::{v1alpha1 as old, v1beta1 as new};
    use cluster::{v1, v1alpha1, v1beta1, v1beta2};
    use work::{v1 as work_v1, v1alpha1 as work_v1alpha1};
    let managed_cluster =
        Parts::new("A cluster that registered at the hub. Its name is also its namespace there.");
    let set = Parts::new("A set of managed clusters.");
    let binding =
        Parts::new("Lets placements of its namespace select clusters of the set it is named after.");
    let placement = Parts::new("Selects clusters out of the sets that are bound to its namespace.");
    let decision = Parts::new("A slice of a placement's decisions.");
    let score = Parts::new("Scores of one cluster, in its namespace, for placements to weigh it by.");
    let manifest_work =
        Parts::new("Objects that the hub wants on the managed cluster whose namespace this is.");
    let replica_set = Parts::new("Makes one work on every cluster that its placements select.");
    let mca = || Parts::new("An add-on on the managed cluster whose namespace this is.");
    let cma = || Parts::new("An add-on that managed clusters may have.");
    let config = || Parts::new("How and where an add-on's agent runs.");
    let template = || Parts::new("An add-on as manifests with variables.");
    vec![
        managed_cluster
            .spec::<v1::ManagedClusterSpec>()
            .status::<v1::ManagedClusterStatus>()
            .complete(v1::ManagedCluster::crd()),
        set.spec::<v1beta2::ManagedClusterSetSpec>()
            .status::<v1beta2::ManagedClusterSetStatus>()
            .complete(v1beta2::ManagedClusterSet::crd()),
        binding
            .spec::<v1beta2::ManagedClusterSetBindingSpec>()
            .status::<v1beta2::ManagedClusterSetBindingStatus>()
            .complete(v1beta2::ManagedClusterSetBinding::crd()),
        placement
            .required_spec::<v1beta1::PlacementSpec>()
            .status::<v1beta1::PlacementStatus>()
            .complete(v1beta1::Placement::crd()),
        decision
            .status::<v1beta1::PlacementDecisionStatus>()
            .complete(definition::<v1beta1::PlacementDecision>()),
        score
            .status::<v1alpha1::AddOnPlacementScoreStatus>()
            .complete(definition::<v1alpha1::AddOnPlacementScore>()),
        manifest_work
            .spec::<work_v1::ManifestWorkSpec>()
            .status::<work_v1::ManifestWorkStatus>()
            .complete(work_v1::ManifestWork::crd()),
        replica_set
            .spec::<work_v1alpha1::ManifestWorkReplicaSetSpec>()
            .status::<work_v1alpha1::ManifestWorkReplicaSetStatus>()
            .complete(work_v1alpha1::ManifestWorkReplicaSet::crd()),
        both(
            mca()
                .required_spec::<old::ManagedClusterAddOnSpec>()
                .status::<old::ManagedClusterAddOnStatus>()
                .complete(old::ManagedClusterAddOn::crd()),
            mca()
                .required_spec::<new::ManagedClusterAddOnSpec>()
                .status::<new::ManagedClusterAddOnStatus>()
                .complete(new::ManagedClusterAddOn::crd()),
        ),
        both(
            cma()
                .required_spec::<old::ClusterManagementAddOnSpec>()
                .status::<old::ClusterManagementAddOnStatus>()
                .complete(old::ClusterManagementAddOn::crd()),
            cma()
                .required_spec::<new::ClusterManagementAddOnSpec>()
                .status::<new::ClusterManagementAddOnStatus>()
                .complete(new::ClusterManagementAddOn::crd()),
        ),
        both(
            config()
                .required_spec::<old::AddOnDeploymentConfigSpec>()
                .complete(old::AddOnDeploymentConfig::crd()),
            config()
                .required_spec::<new::AddOnDeploymentConfigSpec>()
                .complete(new::AddOnDeploymentConfig::crd()),
        ),
        both(
            template()
                .required_spec::<old::AddOnTemplateSpec>()
                .complete(old::AddOnTemplate::crd()),
            template()
                .required_spec::<new::AddOnTemplateSpec>()
                .complete(new::AddOnTemplate::crd()),
        ),
    ]
}

/// What a managed cluster's API server always needs (ocm-wire §1.0).
pub fn spoke() -> Vec<CustomResourceDefinition> {
    use cluster::v1alpha1::{ClusterClaim, ClusterClaimSpec};
    use work::v1::{AppliedManifestWork, AppliedManifestWorkSpec, AppliedManifestWorkStatus};
    vec![
        Parts::new("On a managed cluster: what the agent applied of one work. It owns the objects.")
            .spec::<AppliedManifestWorkSpec>()
            .status::<AppliedManifestWorkStatus>()
            .complete(AppliedManifestWork::crd()),
        Parts::new("On a managed cluster: a fact about it, reported to the hub.")
            .spec::<ClusterClaimSpec>()
            .complete(ClusterClaim::crd()),
    ]
}

/// ClusterProfile, which the hub needs only when it makes them (gate ClusterProfile).
pub fn cluster_profile() -> CustomResourceDefinition {
    use multicluster::v1alpha1::{ClusterProfile, ClusterProfileSpec, ClusterProfileStatus};
    Parts::new("A cluster of an inventory.")
        .required_spec::<ClusterProfileSpec>()
        .status::<ClusterProfileStatus>()
        .complete(ClusterProfile::crd())
}

/// ClusterProperty, which a managed cluster needs only when its properties are reported (gate ClusterProperty).
pub fn cluster_property() -> CustomResourceDefinition {
    use about::v1alpha1::{ClusterProperty, ClusterPropertySpec, ClusterPropertyStatus};
    Parts::new("On a managed cluster: a fact about it, reported to the hub.")
        .spec::<ClusterPropertySpec>()
        .status::<ClusterPropertyStatus>()
        .complete(ClusterProperty::crd())
}

/// Every definition there is, of both sides.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = hub();
    crds.extend(spoke());
    crds.extend([cluster_profile(), cluster_property()]);
    crds
}

/// The file a definition is kept in: `<group>_<plural>.yaml`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// The definition as its file holds it.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    use serde::ser::Error;
    let mut definition = serde_json::to_value(crd).map_err(serde_saphyr::ser::Error::custom)?;
    whole_numbers(&mut definition);
    serde_saphyr::to_string(&definition)
}

/// Bounds are floating-point numbers in the API's types; a file reads better without `.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // The bounds in our schemas are small, so the number's text is exact.
            if let Some(whole) = number
                .to_string()
                .strip_suffix(".0")
                .and_then(|text| text.parse::<i64>().ok())
            {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// The parts of one version's schema.
struct Parts {
    root: Value,
}

impl Parts {
    fn new(description: &str) -> Self {
        let root = json!({
            "type": "object",
            "description": description,
            "properties": {
                "apiVersion": { "type": "string", "description": "Group and version the object is written in." },
                "kind": { "type": "string", "description": "Kind of the object." },
                "metadata": { "type": "object" },
            },
        });
        Self { root }
    }

    fn spec<S: JsonSchema>(mut self) -> Self {
        self.root["properties"]["spec"] = structural::<S>();
        self
    }

    fn required_spec<S: JsonSchema>(self) -> Self {
        let mut parts = self.spec::<S>();
        parts.root["required"] = json!(["spec"]);
        parts
    }

    fn status<S: JsonSchema>(mut self) -> Self {
        self.root["properties"]["status"] = structural::<S>();
        self
    }

    /// Gives the definition's one version this schema, and the definition the list kind that kube leaves out.
    fn complete(self, mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
        let schema = serde_json::from_value(self.root)
            .unwrap_or_else(|error| unreachable!("schemas hold schema keywords only: {error}"));
        crd.spec
            .names
            .list_kind
            .get_or_insert(format!("{}List", crd.spec.names.kind));
        if let Some(version) = crd.spec.versions.first_mut() {
            version.schema = Some(CustomResourceValidation {
                open_api_v3_schema: Some(schema),
            });
        }
        crd
    }
}

/// The definition of a namespaced kind without a spec.
fn definition<K: Resource<DynamicType = ()>>() -> CustomResourceDefinition {
    let kind = K::kind(&()).into_owned();
    let status = CustomResourceSubresourceStatus(json!({}));
    let version = CustomResourceDefinitionVersion {
        name: K::version(&()).into_owned(),
        served: true,
        storage: true,
        subresources: Some(CustomResourceSubresources {
            status: Some(status),
            scale: None,
        }),
        ..CustomResourceDefinitionVersion::default()
    };
    CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", K::plural(&()), K::group(&()))),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: K::group(&()).into_owned(),
            names: CustomResourceDefinitionNames {
                plural: K::plural(&()).into_owned(),
                singular: Some(kind.to_ascii_lowercase()),
                kind,
                ..CustomResourceDefinitionNames::default()
            },
            scope: "Namespaced".to_owned(),
            versions: vec![version],
            ..CustomResourceDefinitionSpec::default()
        },
        ..CustomResourceDefinition::default()
    }
}

/// One definition out of two versions of a kind. Its conversion is left at None, which changes the version only:
/// who serves the webhook of `addon::conversion` sets it.
fn both(mut stored: CustomResourceDefinition, served: CustomResourceDefinition) -> CustomResourceDefinition {
    stored.spec.versions.extend(served.spec.versions);
    stored
}
