//! Between v1alpha1, which add-ons are stored in, and v1beta1 (ocm-wire §1.11). Pure: no server, no request.
//!
//! v1beta1 has no `addOnConfiguration`, neither in spec nor in status: it is lost on the way there.

use super::{
    v1alpha1::{self as old, ConfigMeta, ConfigReferent},
    v1beta1::{self as new, AddOnConfig, RegistrationType},
};
use crate::constants::{
    annotations::V1ALPHA1_INSTALL_NAMESPACE,
    names::{KUBE_API_SERVER_CLIENT_SIGNER, RESERVED_NO_DEFAULT_CONFIG},
};

impl From<old::ClusterManagementAddOn> for new::ClusterManagementAddOn {
    fn from(from: old::ClusterManagementAddOn) -> Self {
        Self {
            metadata: from.metadata,
            spec: new::ClusterManagementAddOnSpec {
                add_on_meta: from.spec.add_on_meta,
                default_configs: from
                    .spec
                    .supported_configs
                    .into_iter()
                    .map(default_config)
                    .collect(),
                install_strategy: from.spec.install_strategy,
            },
            status: from.status.map(|status| new::ClusterManagementAddOnStatus {
                default_config_references: status.default_config_references,
                install_progressions: status.install_progressions,
            }),
        }
    }
}

impl From<new::ClusterManagementAddOn> for old::ClusterManagementAddOn {
    fn from(from: new::ClusterManagementAddOn) -> Self {
        Self {
            metadata: from.metadata,
            spec: old::ClusterManagementAddOnSpec {
                add_on_meta: from.spec.add_on_meta,
                add_on_configuration: old::ConfigCoordinates::default(),
                supported_configs: from
                    .spec
                    .default_configs
                    .into_iter()
                    .map(supported_config)
                    .collect(),
                install_strategy: from.spec.install_strategy,
            },
            status: from.status.map(|status| old::ClusterManagementAddOnStatus {
                default_config_references: status.default_config_references,
                install_progressions: status.install_progressions,
            }),
        }
    }
}

fn default_config(from: ConfigMeta) -> AddOnConfig {
    let default = from.default_config.unwrap_or_else(|| ConfigReferent {
        namespace: String::new(),
        name: RESERVED_NO_DEFAULT_CONFIG.to_owned(),
    });
    AddOnConfig {
        group: from.group,
        resource: from.resource,
        namespace: default.namespace,
        name: default.name,
    }
}

fn supported_config(from: AddOnConfig) -> ConfigMeta {
    let none = from.name.is_empty() || from.name == RESERVED_NO_DEFAULT_CONFIG;
    let default = ConfigReferent {
        namespace: from.namespace,
        name: from.name,
    };
    ConfigMeta {
        group: from.group,
        resource: from.resource,
        default_config: (!none).then_some(default),
    }
}

impl From<old::ManagedClusterAddOn> for new::ManagedClusterAddOn {
    fn from(from: old::ManagedClusterAddOn) -> Self {
        let mut metadata = from.metadata;
        if let Some(namespace) = from
            .spec
            .install_namespace
            .filter(|namespace| !namespace.is_empty())
        {
            metadata
                .annotations
                .get_or_insert_default()
                .insert(V1ALPHA1_INSTALL_NAMESPACE.to_owned(), namespace);
        }
        Self {
            metadata,
            spec: new::ManagedClusterAddOnSpec {
                configs: from.spec.configs,
            },
            status: from.status.map(new_status),
        }
    }
}

impl From<new::ManagedClusterAddOn> for old::ManagedClusterAddOn {
    fn from(from: new::ManagedClusterAddOn) -> Self {
        let mut metadata = from.metadata;
        let annotations = metadata.annotations.as_mut();
        let install_namespace = annotations.and_then(|all| all.remove(V1ALPHA1_INSTALL_NAMESPACE));
        if metadata
            .annotations
            .as_ref()
            .is_some_and(std::collections::BTreeMap::is_empty)
        {
            metadata.annotations = None;
        }
        Self {
            metadata,
            spec: old::ManagedClusterAddOnSpec {
                install_namespace,
                configs: from.spec.configs,
            },
            status: from.status.map(old_status),
        }
    }
}

fn new_status(from: old::ManagedClusterAddOnStatus) -> new::ManagedClusterAddOnStatus {
    let driver = from.kube_client_driver;
    let registrations = from
        .registrations
        .into_iter()
        .map(|registration| new_registration(registration, driver));
    new::ManagedClusterAddOnStatus {
        registrations: registrations.collect(),
        conditions: from.conditions,
        related_objects: from.related_objects,
        add_on_meta: from.add_on_meta,
        supported_configs: from.supported_configs,
        config_references: from.config_references.into_iter().map(new_reference).collect(),
        namespace: from.namespace,
        health_check: from.health_check,
    }
}

fn old_status(from: new::ManagedClusterAddOnStatus) -> old::ManagedClusterAddOnStatus {
    let driver = from
        .registrations
        .iter()
        .filter(|registration| registration.type_ == RegistrationType::KubeClient)
        .find_map(|registration| registration.kube_client.as_ref())
        .and_then(|client| client.driver);
    old::ManagedClusterAddOnStatus {
        kube_client_driver: driver,
        registrations: from.registrations.into_iter().map(old_registration).collect(),
        conditions: from.conditions,
        related_objects: from.related_objects,
        add_on_meta: from.add_on_meta,
        add_on_configuration: old::ConfigCoordinates::default(),
        supported_configs: from.supported_configs,
        config_references: from.config_references.into_iter().map(old_reference).collect(),
        namespace: from.namespace,
        health_check: from.health_check,
    }
}

fn new_registration(
    from: old::RegistrationConfig,
    driver: Option<new::KubeClientDriver>,
) -> new::RegistrationConfig {
    let old::Subject {
        user,
        groups,
        organization_units,
    } = from.subject;
    if from.signer_name == KUBE_API_SERVER_CLIENT_SIGNER {
        new::RegistrationConfig {
            type_: RegistrationType::KubeClient,
            kube_client: Some(new::KubeClientConfig {
                subject: new::KubeClientSubject { user, groups },
                driver,
            }),
            custom_signer: None,
        }
    } else {
        new::RegistrationConfig {
            type_: RegistrationType::CustomSigner,
            kube_client: None,
            custom_signer: Some(new::CustomSignerConfig {
                signer_name: from.signer_name,
                subject: new::Subject {
                    user,
                    groups,
                    organization_units,
                },
            }),
        }
    }
}

fn old_registration(from: new::RegistrationConfig) -> old::RegistrationConfig {
    match from.type_ {
        RegistrationType::KubeClient => {
            let new::KubeClientSubject { user, groups } = from.kube_client.unwrap_or_default().subject;
            old::RegistrationConfig {
                signer_name: KUBE_API_SERVER_CLIENT_SIGNER.to_owned(),
                subject: old::Subject {
                    user,
                    groups,
                    organization_units: Vec::new(),
                },
            }
        }
        RegistrationType::CustomSigner => {
            let signer = from.custom_signer.unwrap_or_default();
            let new::Subject {
                user,
                groups,
                organization_units,
            } = signer.subject;
            old::RegistrationConfig {
                signer_name: signer.signer_name,
                subject: old::Subject {
                    user,
                    groups,
                    organization_units,
                },
            }
        }
    }
}

fn new_reference(from: old::ConfigReference) -> new::ConfigReference {
    new::ConfigReference {
        group: from.group,
        resource: from.resource,
        last_observed_generation: from.last_observed_generation,
        desired_config: from.desired_config,
        last_applied_config: from.last_applied_config,
    }
}

fn old_reference(from: new::ConfigReference) -> old::ConfigReference {
    let (namespace, name) = from
        .desired_config
        .as_ref()
        .map_or_else(Default::default, |desired| {
            (desired.namespace.clone(), desired.name.clone())
        });
    old::ConfigReference {
        group: from.group,
        resource: from.resource,
        namespace,
        name,
        last_observed_generation: from.last_observed_generation,
        desired_config: from.desired_config,
        last_applied_config: from.last_applied_config,
    }
}
