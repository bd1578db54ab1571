//! Annotation keys and values.

/// When the hub accepted a cluster by itself (RFC 3339); it does so once.
pub const AUTOMATICALLY_ACCEPTED_ON: &str = "open-cluster-management.io/automatically-accepted-on";
/// Value `true`: the hub does not compare clocks with the cluster.
pub const SKIP_CLOCK_SYNC_CHECK: &str = "registration.open-cluster-management.io/skip-clock-sync-check";
/// Prefix of the annotations an agent may give its ManagedCluster when it creates it.
pub const AGENT_PREFIX: &str = "agent.open-cluster-management.io/";
/// UID of the `kube-system` namespace of the cluster behind a ManagedCluster: another cluster with the same name is told
/// from the first by it.
pub const CLUSTER_UID: &str = "agent.open-cluster-management.io/cluster-uid";
/// On a cluster's lease, when the clocks differ by more than the lease lasts: the hub's time minus the cluster's, in
/// seconds. The lease's times are then the hub's.
pub const CLOCK_OFFSET: &str = "muster.open-cluster-management.io/clock-offset";
/// The authenticated user behind a CSR that a server made for it.
pub const CSR_USER: &str = "open-cluster-management.io/csr-user";
/// Image overrides of a cluster, as JSON.
pub const IMAGE_REGISTRIES: &str = "open-cluster-management.io/image-registries";
/// Order of deletion with the cluster, 0 to 100, lower first.
pub const CLEANUP_PRIORITY: &str = "open-cluster-management.io/cleanup-priority";
/// Hash of what was applied last, on objects under server-side apply; on add-on works, of its configurations.
pub const CONFIG_SPEC_HASH: &str = "open-cluster-management.io/config-spec-hash";
/// Hash of an object's spec.
pub const OBJECT_HASH: &str = "open-cluster-management.io/object-hash";
/// Value `false`: a default cluster set is not put back to its default.
pub const AUTO_UPDATE: &str = "cluster.open-cluster-management.io/autoupdate";
/// Value `true`: the placement is not scheduled.
pub const SCHEDULING_DISABLE: &str = "cluster.open-cluster-management.io/experimental-scheduling-disable";
/// On a CRD: the version of the software that installed it. Older software leaves it alone.
pub const CRD_VERSION: &str = "operator.open-cluster-management.io/version";
/// Prefix of annotations that go from a cluster to its add-ons.
pub const ADDON_PREFIX: &str = "addon.open-cluster-management.io";
/// Who installs an add-on.
pub const ADDON_LIFECYCLE: &str = "addon.open-cluster-management.io/lifecycle";
/// Value of [`ADDON_LIFECYCLE`]: the hub's add-on controllers.
pub const ADDON_LIFECYCLE_ADDON_MANAGER: &str = "addon-manager";
/// Value of [`ADDON_LIFECYCLE`]: the add-on itself.
pub const ADDON_LIFECYCLE_SELF: &str = "self";
/// The cluster that hosts an add-on's agent.
pub const HOSTING_CLUSTER_NAME: &str = "addon.open-cluster-management.io/hosting-cluster-name";
/// Where a manifest of a hosted add-on goes.
pub const HOSTED_MANIFEST_LOCATION: &str = "addon.open-cluster-management.io/hosted-manifest-location";
/// Value of [`HOSTED_MANIFEST_LOCATION`]: to the managed cluster.
pub const HOSTED_MANIFEST_MANAGED: &str = "managed";
/// Value of [`HOSTED_MANIFEST_LOCATION`]: to the hosting cluster.
pub const HOSTED_MANIFEST_HOSTING: &str = "hosting";
/// Value of [`HOSTED_MANIFEST_LOCATION`]: nowhere.
pub const HOSTED_MANIFEST_NONE: &str = "none";
/// On a Job or Pod: it runs before the add-on is deleted.
pub const ADDON_PRE_DELETE: &str = "addon.open-cluster-management.io/addon-pre-delete";
/// On a manifest of an add-on: it stays when the add-on goes.
pub const ADDON_DELETION_ORPHAN: &str = "addon.open-cluster-management.io/deletion-orphan";
/// Value `true` on a cluster: no add-on is installed by itself.
pub const DISABLE_AUTOMATIC_INSTALLATION: &str =
    "addon.open-cluster-management.io/disable-automatic-installation";
/// Keeps v1alpha1's `spec.installNamespace` on a v1beta1 ManagedClusterAddOn.
pub const V1ALPHA1_INSTALL_NAMESPACE: &str = "addon.open-cluster-management.io/v1alpha1-install-namespace";
/// Muster's own, on a ManifestWork: what becomes of changes on the cluster: `Enforce` (default: they are taken back),
/// `Report` (they are only told), `Once` (applied once a generation, then left alone).
pub const DRIFT: &str = "work.muster.open-cluster-management.io/drift";
/// Muster's own, on a ManifestWork: whether objects that exist and are not ours are taken over: `Always` (default),
/// `IfNoDiff` (only where nothing of them would change), `Never`.
pub const TAKE_OVER: &str = "work.muster.open-cluster-management.io/take-over";
/// Muster's own, on an AppliedManifestWork: the kinds of which it may own objects, also where they are not recorded yet, as
/// `<kind>.<version>.<group>`, comma separated.
pub const KINDS: &str = "work.muster.open-cluster-management.io/kinds";
/// Muster's own, on an AppliedManifestWork: UID of the ManifestWork it was made for. Another work of the name is one of another
/// hub, or of a hub that was restored: one that is made again after it was deleted has a record of its own.
pub const WORK_UID: &str = "work.muster.open-cluster-management.io/work-uid";
/// Muster's own, on a ManifestWork: asks what applying it would change; nothing of a work that is made with it is applied.
/// The answer is the condition `DryRun`. `true` asks about the work as it is and stops its being applied; what `muster work
/// diff` puts there names itself, and may bring another content to ask about.
pub const DRY_RUN: &str = "work.muster.open-cluster-management.io/dry-run";
/// Muster's own, on an AppliedManifestWork: since when, and why, nothing that its work applied is removed although the hub
/// says so. Without it, it is removed at once.
pub const REMOVAL_HELD: &str = "work.muster.open-cluster-management.io/removal-held";
/// Muster's own, on the works of a bundle: how many there should be. While there are fewer, it was not made to the end.
pub const BUNDLE_PARTS: &str = "work.muster.open-cluster-management.io/parts";
/// Muster's own, on a join token's Secret: patterns of the cluster names it is good for, comma separated; none: any.
pub const TOKEN_CLUSTERS: &str = "token.muster.open-cluster-management.io/clusters";
/// Muster's own, on a join token's Secret, value `true`: clusters that come with it are accepted.
pub const TOKEN_ACCEPT: &str = "token.muster.open-cluster-management.io/accept";
/// Muster's own, on a join token's Secret: the set its clusters come into.
pub const TOKEN_SET: &str = "token.muster.open-cluster-management.io/set";
/// Muster's own, on a join token's Secret: labels its clusters get, a JSON object.
pub const TOKEN_LABELS: &str = "token.muster.open-cluster-management.io/labels";
/// Muster's own, on a join token's Secret: how many clusters may come with it; none: any number.
pub const TOKEN_USES: &str = "token.muster.open-cluster-management.io/uses";
/// Muster's own, on a join token's Secret: the clusters that came with it, comma separated, where uses are counted.
pub const TOKEN_USED_BY: &str = "token.muster.open-cluster-management.io/used-by";
/// Muster's own, on a join token's Secret: when it ends (RFC 3339), as its data say too.
pub const TOKEN_EXPIRATION: &str = "token.muster.open-cluster-management.io/expiration";
/// Muster's own, on a ManagedCluster: the id of the join token it came with.
pub const JOINED_WITH: &str = "registration.muster.open-cluster-management.io/token";
/// Muster's own, on a ManagedCluster: the name of the agent that got a certificate for it.
pub const AGENT: &str = "registration.muster.open-cluster-management.io/agent";
/// Muster's own, on a ManagedCluster: when the client certificate that was last issued to its agent is good, an interval
/// of ISO 8601.
pub const CLIENT_CERTIFICATE: &str = "registration.muster.open-cluster-management.io/client-certificate";
/// Agents that had a cluster's name before, the last one last: on a ManagedCluster, and on the namespace of a cluster that left.
pub const FORMER_AGENTS: &str = "registration.muster.open-cluster-management.io/former-agents";
