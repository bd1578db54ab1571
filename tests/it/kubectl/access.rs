//! Who may do what, and identities: roles, tokens, certificates; creating by generators.

use super::Kubectl;
use crate::Result;
use base64::Engine as _;
use rcgen::{CertificateParams, DnType, KeyPair};

#[tokio::test(flavor = "multi_thread")]
async fn rights_tokens_and_certificates() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    kubectl
        .all(&[
            ("auth whoami", "system:masters"),
            ("auth can-i delete nodes", "yes"),
            ("auth can-i --list", "*.*"),
            ("create role reader --verb=get,list --resource=pods", "created"),
            ("create rolebinding reader --role=reader --user=ann", "created"),
            ("auth can-i list pods --as ann", "yes"),
            (
                "create clusterrole metrics --verb=get --non-resource-url=/metrics",
                "created",
            ),
            (
                "create clusterrolebinding metrics --clusterrole=metrics --user=ann",
                "created",
            ),
            ("create serviceaccount bot", "created"),
        ])
        .await?;
    let no = kubectl
        .run(&["auth", "can-i", "delete", "pods", "--as", "ann"])
        .await?;
    assert!(no.code == 1 && no.stdout.trim() == "no", "{no:?}");
    kubectl
        .refused(
            &["get", "secrets", "--as", "ann"],
            "User \"ann\" cannot list resource \"secrets\"",
        )
        .await?;
    let token = kubectl.ok(&["create", "token", "bot", "--duration=10m"]).await?;
    assert_eq!(token.trim().split('.').count(), 3, "a JWT has three parts");
    let roles = r#"{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
      "metadata": {"name": "reader", "namespace": "default"},
      "rules": [{"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list"]}]}"#;
    let roles = kubectl.file("roles.json", roles)?;
    assert!(
        kubectl
            .ok(&["auth", "reconcile", "-f", &roles])
            .await?
            .contains("reconciled")
    );
    kubectl
        .all(&[("auth can-i list configmaps --as ann", "yes")])
        .await?;

    let mut wanted = CertificateParams::default();
    wanted.distinguished_name.push(DnType::CommonName, "ann");
    let request = wanted.serialize_request(&KeyPair::generate()?)?.pem()?;
    let request = base64::engine::general_purpose::STANDARD.encode(request);
    for name in ["good", "bad"] {
        let csr = format!(
            r#"{{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {{"name": "{name}"}},
              "spec": {{"request": "{request}", "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}}}"#
        );
        let csr = kubectl.file(&format!("{name}.json"), &csr)?;
        kubectl.ok(&["create", "-f", &csr]).await?;
    }
    kubectl
        .all(&[
            ("get csr good", "Pending"),
            ("certificate approve good", "approved"),
            (
                "wait --for=jsonpath={.status.certificate} csr/good --timeout=60s",
                "condition met",
            ),
            ("get csr good", "Approved,Issued"),
            ("certificate deny bad", "denied"),
            ("get csr bad", "Denied"),
        ])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn generators_make_every_common_kind() -> Result {
    let Some(kubectl) = Kubectl::start().await? else {
        return Ok(());
    };
    kubectl
        .all(&[
            ("create namespace shop", "namespace/shop created"),
            ("create deployment d --image=i -n shop", "created"),
            ("create quota q --hard=pods=50 -n shop", "created"),
            ("create ingress i --rule=a.io/=web:80 -n shop", "created"),
            (
                "create poddisruptionbudget p --selector=app=d --min-available=1 -n shop",
                "created",
            ),
            ("create service clusterip s --tcp=80:8080 -n shop", "created"),
            (
                "create service externalname e --external-name=a.io -n shop",
                "created",
            ),
            ("create service nodeport n --tcp=80 -n shop", "created"),
            (
                "create secret docker-registry r --docker-username=u --docker-password=p -n shop",
                "created",
            ),
            ("create priorityclass high --value=5", "created"),
            ("get ingress,pdb,quota,services -n shop -o name", "service/s"),
            ("delete namespace shop --timeout=60s", "deleted"),
        ])
        .await?;
    kubectl.refused(&["get", "namespace", "shop"], "NotFound").await
}
