use super::*;
use serde_json::json;

fn problem(text: &str) -> String {
    let read = parse("f.yaml", text).and_then(|m| prepare(m, None));
    read.unwrap_err().to_string()
}

fn names(manifests: &[Manifest]) -> Vec<(usize, usize, &str)> {
    manifests
        .iter()
        .map(|m| (m.place.document, m.place.line, m.text("/metadata/name")))
        .collect()
}

#[test]
fn documents_are_counted_and_placed() {
    let text = "%YAML 1.1\n---\n# only a comment\n---\n\n# first\nkind: A\nmetadata: {name: a}\n--- # second\nkind: B\nmetadata:\n  name: b\n  note: |\n    ---\n    more\n...\n---\n---\n{\"kind\": \"C\", \"metadata\": {\"name\": \"c\"}}\n{\"kind\": \"D\", \"metadata\": {\"name\": \"d\"}}\n--- {kind: E, metadata: {name: e}}\n";
    let manifests = parse("f", text).unwrap();
    assert_eq!(
        names(&manifests),
        [
            (1, 7, "a"),
            (2, 10, "b"),
            (3, 19, "c"),
            (4, 19, "d"),
            (5, 21, "e")
        ]
    );
    assert_eq!(manifests[1].object["metadata"]["note"], "---\nmore\n");
}

#[test]
fn lists_are_what_they_list() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  metadata: {name: a}\n- {apiVersion: v1, kind: List, items: [{kind: B, metadata: {name: b}}]}\n";
    assert_eq!(names(&parse("f", text).unwrap()), [(1, 1, "a"), (1, 1, "b")]);
    assert!(problem("apiVersion: v1\nkind: List\n").contains("the List has no items"));
    // Lists of one kind are kinds of their own to everybody but kubectl.
    assert_eq!(parse("f", "kind: PodList\nitems: []").unwrap().len(), 1);
}

#[test]
fn values_are_read_as_kubernetes_reads_them() {
    let text = "mode: 0644\nyes: no\nquoted: \"yes\"\nnumber: 1_0\nport: 80\nversion: 1.10\nbig: 9007199254740993\nmerged:\n  <<: &x {a: 1}\n  b: 2\nempty:\ntime: 2024-01-01\nblock: |\n  a\n  b\ndata: {1: one}\n";
    let object = &parse("f", text).unwrap()[0].object;
    assert_eq!(object["mode"], 420);
    assert_eq!(object["quoted"], "yes");
    assert_eq!(object["yes"], false);
    assert_eq!(object["port"], 80);
    assert_eq!(object["big"], 9_007_199_254_740_993_u64);
    assert_eq!(object["merged"], json!({"a": 1, "b": 2}));
    assert_eq!(object["empty"], Value::Null);
    assert_eq!(object["time"], "2024-01-01");
    assert_eq!(object["block"], "a\nb\n");
    assert_eq!(object["data"], json!({"1": "one"}));
}

#[test]
fn every_error_says_file_document_and_line() {
    let good = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";
    for (second, want) in [
        (
            "metadata: {name: x}\n",
            "f.yaml, document 2, line 6: the manifest has no apiVersion",
        ),
        (
            "\napiVersion: v1\nmetadata: {name: x}\n",
            "f.yaml, document 2, line 7: the manifest has no kind",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\n",
            "f.yaml, document 2, line 6: the ConfigMap has no metadata.name",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n",
            "generateName",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\n",
            "metadata.name is no text: put it in quotes",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: x\n",
            "the Pod has no metadata.name",
        ),
        ("- a\n", "it is a list, not an object"),
        ("just text\n", "it is a text, not an object"),
        ("apiVersion: v1\nkind: [\n", "f.yaml, document 2, line "),
        (
            "apiVersion: v1\n kind: x\n",
            "f.yaml, document 2, line 7: bad YAML: ",
        ),
        (
            "apiVersion: v1\nkind: X\n\tx: 1\n",
            "f.yaml, document 2, line 7: bad YAML: ",
        ),
        ("a: 1\na: 2\n", "f.yaml, document 2, line 7: bad YAML: "),
        (
            "{\"apiVersion\": \"v1\",\n \"kind\" \"X\"}\n",
            "f.yaml, document 2, line 7: bad YAML: ",
        ),
        (
            good,
            "ConfigMap \"a\" is there twice, first in f.yaml, document 1, line 1",
        ),
    ] {
        let error = problem(&format!("{good}---\n{second}"));
        assert!(error.contains(want), "wanted {want:?}, got {error:?}");
        assert!(!error.contains('\n'), "{error:?}");
        assert_eq!(
            error.matches("line ").count(),
            1 + usize::from(error.contains("twice")),
            "{error:?}"
        );
    }
}

#[test]
fn namespaces_are_filled_where_the_kind_needs_one() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n---\napiVersion: x.io/v1\nkind: Widget\nmetadata: {name: w}\n---\napiVersion: x.io/v1\nkind: Gadget\nmetadata: {name: g}\n---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.x.io}\nspec: {group: x.io, scope: Namespaced, names: {kind: Widget}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: own}\n";
    let namespaces = |namespace: Option<&str>, text: &str| {
        let objects = prepare(parse("f", text)?, namespace)?;
        Ok::<_, Error>(
            objects
                .iter()
                .map(|m| m.object["metadata"]["namespace"].as_str().map(str::to_owned))
                .collect::<Vec<_>>(),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    let want = [some("default"), None, some("default"), None, None, some("own")];
    assert_eq!(namespaces(None, text).unwrap(), want);
    let error = namespaces(Some("mine"), text).unwrap_err().to_string();
    assert!(
        error.contains("its namespace \"own\" is not the one of --namespace, \"mine\""),
        "{error}"
    );
    assert_eq!(namespaces(Some("own"), text).unwrap()[0], some("own"));
}

#[test]
fn files_folders_and_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let error = read(&[dir.path().to_owned()], false).unwrap_err().to_string();
    assert!(error.contains("holds no .yaml"), "{error}");
    write("b.yml", "kind: B\nmetadata: {name: b}");
    write("a.json", "{\"kind\": \"A\", \"metadata\": {\"name\": \"a\"}}");
    write("readme.txt", "]");
    let read_names = |path: PathBuf| {
        read(&[path], false).map(|m| {
            m.iter()
                .map(|m| m.text("/metadata/name").to_owned())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(read_names(dir.path().to_owned()).unwrap(), ["a", "b"]);
    let error = read_names(dir.path().join("c.yaml")).unwrap_err().to_string();
    assert!(error.contains("c.yaml: No such file"), "{error}");
    write("empty.yaml", "# nothing\n---\n");
    let error = read_names(dir.path().join("empty.yaml")).unwrap_err().to_string();
    assert!(
        error.contains("no manifest in") && error.contains("empty.yaml"),
        "{error}"
    );
    std::fs::write(dir.path().join("binary.yaml"), b"a: 1\n\xff").unwrap();
    let error = read_names(dir.path().join("binary.yaml"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("binary.yaml, line 2: it is not UTF-8"), "{error}");
}

#[test]
fn folders_in_folders_kustomizations_and_urls() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner/most");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("a.yaml"), "kind: A\nmetadata: {name: a}").unwrap();
    std::fs::write(dir.path().join("b.yaml"), "kind: B\nmetadata: {name: b}").unwrap();
    let read_in = |path: &Path, recursive| read(&[path.to_owned()], recursive).map(|m| m.len());
    assert_eq!(read_in(dir.path(), false).unwrap(), 1);
    assert_eq!(read_in(dir.path(), true).unwrap(), 2);
    let error = read_in(&dir.path().join("inner"), false).unwrap_err().to_string();
    assert!(error.contains("-R"), "{error}");
    std::fs::write(inner.join("kustomization.yaml"), "resources: [a.yaml]").unwrap();
    let error = read_in(dir.path(), true).unwrap_err().to_string();
    assert!(
        error.contains("inner/most: it is a kustomization") && error.contains("kustomize build"),
        "{error}"
    );
    let error = problem("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n");
    assert!(error.contains("kustomize build"), "{error}");
    let error = read_in(Path::new("https://example.com/a.yaml"), false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("curl"), "{error}");
    let error = read(&["-".into(), "-".into()], false).unwrap_err().to_string();
    assert!(error.contains("only once"), "{error}");
}
