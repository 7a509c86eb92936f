"""An issuer configuration is Fulcio's file format, with Fulcio's start-up errors."""

import json
import re
from typing import Any

import pytest
import yaml

from ca_lite.errors import ConfigError
from ca_lite.issuer_config import load_issuers
from ca_lite.issuers import IssuerType
from ca_lite.templates import TemplateError, check_template, render
from settings.document import DocumentError, YamlMapping, read_yaml

URL = "https://accounts.example.com"


def config(key: str = "oidc-issuers", url: str = URL, **entry: Any) -> str:
    values = {"client-id": "sigstore", **{name.replace("_", "-"): value for name, value in entry.items()}}
    return yaml.safe_dump({key: {url: values}})


def test_the_control_case_loads_without_a_warning() -> None:
    issuers = load_issuers(config(type="email"), "test")
    assert issuers.exact[URL].type is IssuerType.EMAIL
    assert issuers.warnings == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (config(type="spiffe"), "spiffe issuer must have SPIFFETrustDomain set"),
        (config(type="spiffe", spiffe_trust_domain="UPPER/x"), "spiffe trust domain is invalid"),
        (config("meta-issuers", type="spiffe", spiffe_trust_domain="a.b"), "SPIFFE meta issuers not supported"),
        (config(type="uri"), "uri issuer must have SubjectDomain set"),
        (config(type="uri", subject_domain="example.com"), "SubjectDomain for uri must contain scheme"),
        (config(url="accounts.example.com", type="uri", subject_domain="https://example.com"), "issuer for uri must"),
        (config(type="uri", subject_domain="http://example.com"), "URI schemes do not match"),
        (config(type="uri", subject_domain="https://example.org"), "second-level domains do not match"),
        (config(type="uri", subject_domain="https://localhost"), "URI hostname too short: localhost"),
        (config(type="username"), "username issuer must have SubjectDomain set"),
        (config(type="username", subject_domain="https://example.com"), "should not contain scheme"),
        (config(type="username", subject_domain="example.org"), "second-level domains do not match"),
        (config(type="uri", subject_domain="https://example.com", issuer_claim="$.x"), "only email issuers can use"),
        (config(type="surprise"), "issuer missing challenge claim"),
        (config(), "issuer missing challenge claim"),
        (config(type="email", ca_cert="garbage"), "ca-cert is not a PEM certificate"),
        (config(type="email", client_id=""), "client-id is missing"),
        (config(type="email", colour="red"), "has no key 'colour': known keys: type"),
        (config(type="ci-provider", ci_provider="nobody"), "metadata not found for ci provider 'nobody'"),
        (config(type="email", subject_domain=7), "issuers.yaml:4:21: subject-domain: must be text"),
        (config(type="email", subject_domian="x"), "did you mean 'subject-domain'?"),
        (config(type="email", skip_email_verification="true"), "'true' is not true or false"),
        ("", "nil config"),
        ("# nothing yet\n", "nil config"),
        ("{}", "nil config"),
        ("[]", "must be a mapping"),
        ("{", "not YAML"),
        ("oidc-issuers: [1]", "must be a mapping"),
        ("surprise: {}", "the configuration has no key 'surprise'"),
        ("ci-issuer-metadata: {x: {subject-alternative-name-template: '{{ .a'}}", "unclosed action"),
        ("ci-issuer-metadata: {x: {extension-templates: {colour: a}}}", "'colour' is not a Fulcio extension"),
    ],
)
def test_a_bad_configuration_is_named_with_fulcios_words(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_issuers(text, "issuers.yaml")
    assert re.match(r"issuers\.yaml:\d+:\d+: ", str(raised.value))
    assert message in str(raised.value)


def test_subdomains_of_one_owner_may_speak_for_each_other() -> None:
    issuers = load_issuers(config(type="uri", subject_domain="https://users.example.com"), "test")
    assert issuers.find(URL) is not None


def test_json_with_go_names_is_the_same_configuration() -> None:
    go = {"OIDCIssuers": {URL: {"IssuerURL": URL, "ClientID": "sigstore", "Type": "email"}}}
    assert load_issuers(json.dumps(go), "test") == load_issuers(config(type="email", issuer_url=URL), "test")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (config(type="username", subject_domain="example.com"), "cannot match their name"),
        (config(type="email", skip_email_verification=True), "any person claim any address"),
        (config(url="http://issuer.example.com", type="email"), "plain http"),
    ],
)
def test_traps_are_warned_of(text: str, warning: str) -> None:
    (found,) = load_issuers(text, "test").warnings
    assert warning in found


def test_the_configuration_end_point_shows_empty_fields() -> None:
    issuers = load_issuers(config("meta-issuers", url="https://*.example.com/*", type="kubernetes"), "test")
    assert issuers.all()[0].as_json() == {
        "wildcardIssuerUrl": "https://*.example.com/*",
        "audience": "sigstore",
        "challengeClaim": "sub",
        "spiffeTrustDomain": "",
        "issuerType": "kubernetes",
        "subjectDomain": "",
        "skipEmailVerification": False,
    }


def test_merge_keys_of_yaml_are_read() -> None:
    text = f"""\
define:
  - &usual {{client-id: sigstore, type: email}}
oidc-issuers:
  {URL}: {{<<: *usual, type: kubernetes}}
  https://two.example.com: {{<<: [{{contact: a@b.example}}, *usual]}}
"""
    issuers = load_issuers(text, "test")
    assert issuers.exact[URL].type is IssuerType.KUBERNETES
    assert issuers.exact["https://two.example.com"].client_id == "sigstore"


def chained(count: int, merge: str, *, last: str) -> str:
    """Mappings of which each merges the one before and adds a key; `merge` has `{}` for the alias."""
    links = [f"  - &m{n} {{<<: {merge.format(f'*m{n - 1}')}, k{n}: v{n}}}" for n in range(1, count + 1)]
    return "define:\n  - &m0 {client-id: sigstore, type: email}\n" + "\n".join(links) + "\n" + last


@pytest.mark.parametrize("merge", ["{}", "[{}]", "[{{contact: a@b.example}}, {}]"])
def test_merged_mappings_chain_as_far_as_aliases_go(merge: str) -> None:
    last = f"oidc-issuers:\n  {URL}: {{x: *m400}}\n"
    document = read_yaml(chained(400, merge, last=last), merges=True)
    assert isinstance(document, YamlMapping)
    ((_, _), (_, issuers)) = document.entries
    assert isinstance(issuers, YamlMapping)
    ((_, issuer),) = issuers.entries
    assert isinstance(issuer, YamlMapping)
    ((_, merged),) = issuer.entries
    assert isinstance(merged, YamlMapping)
    assert {key.text for key, _ in merged.entries} - {"contact"} == {
        "client-id",
        "type",
        *(f"k{n}" for n in range(1, 401)),
    }


def test_a_merged_mapping_is_as_deep_as_its_values_and_no_deeper() -> None:
    """Readers of the tree call themselves for each level, so no chain may make it deeper than written levels."""
    flat = "define:\n  - &a " + "{x: " * 21 + "1" + "}" * 21
    read_yaml(f"{flat}\nmerged: {{<<: *a}}\nlisted: {{<<: [*a, *a]}}\nkept: [*a]", merges=True)
    with pytest.raises(DocumentError, match="nested deeper than 24 levels"):
        read_yaml(f"{flat}\nover: {{a: {{b: {{c: {{<<: *a}}}}}}}}", merges=True)
    with pytest.raises(DocumentError, match="nested deeper than 24 levels"):
        read_yaml(f"{flat}\nover: {{a: {{b: {{c: {{<<: [*a]}}}}}}}}", merges=True)
    deeper = [f"  - &a{n} {{x: {{<<: *a{n - 1}}}}}" for n in range(1, 80)]
    with pytest.raises(DocumentError, match="nested deeper than 24 levels"):
        read_yaml("define:\n  - &a0 {x: 1}\n" + "\n".join(deeper), merges=True)


def test_merged_mappings_stop_before_they_unfold() -> None:
    doubled = [f"  - &m{n} {{<<: [*m{n - 1}, *m{n - 1}], k{n}: v}}" for n in range(1, 60)]
    with pytest.raises(DocumentError, match="more than 5000000 values, counting each use of an alias"):
        read_yaml("define:\n  - &m0 {client-id: sigstore}\n" + "\n".join(doubled), merges=True)
    with pytest.raises(ConfigError, match="more than 1000 aliases: write some of the values out"):
        load_issuers(chained(1_001, "{}", last="oidc-issuers: {}\n"), "test")


@pytest.mark.parametrize(
    "issuer", ["{ClientID: a, client-id: b, type: email}", "{ClientID: a, type: email, <<: {client-id: b}}"]
)
def test_a_key_written_in_both_of_fulcios_spellings_is_refused(issuer: str) -> None:
    with pytest.raises(ConfigError, match="'client-id' was already given on line 1"):
        load_issuers(f"oidc-issuers: {{'{URL}': {issuer}}}", "test")


VALUES = {"a": "1", "b": "two", "example.com/c": "3"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a", "1"),
        ("{{ .a }}/{{.b}}", "1/two"),
        ('{{ index . "example.com/c" }}', "3"),
        ('{{(index . "example.com/c")}}', "3"),
        ('x{{ if eq .a "1" }}yes{{ else }}no{{ end }}', "xyes"),
        ('{{if eq .a "2"}}yes{{ else }}no-{{ .b }}{{end}}', "no-two"),
        ('{{if eq .a "2"}}{{ .missing }}{{end}}', ""),
        ('{{ if eq .a "1" }}{{ if eq .b "two" }}both{{ end }}{{ end }}', "both"),
    ],
)
def test_templates_mean_what_go_means(template: str, text: str) -> None:
    assert render(template, VALUES, "iss") == text


@pytest.mark.parametrize("template", ["missing", "{{ .missing }}", '{{ if eq .missing "1" }}{{ end }}'])
def test_a_missing_claim_is_an_error_not_an_empty_text(template: str) -> None:
    with pytest.raises(TemplateError, match=r"value <missing> not present in either claims or defaults\. Issuer: iss"):
        render(template, VALUES, "iss")


@pytest.mark.parametrize(
    "template",
    [
        "{{",
        "{{ .a",
        "a }}",
        "{{ }}",
        "{{ .a | printf }}",
        "{{ range . }}{{ end }}",
        "{{ end }}",
        "{{ else }}",
        '{{ if eq .a "1" }}',
        '{{ if eq .a "1" }}{{ else }}{{ else }}{{ end }}',
        '{{ if eq .a "1" }}' * 10 + "{{ end }}" * 10,
        "x" * 5000,
    ],
)
def test_no_other_template_is_accepted(template: str) -> None:
    with pytest.raises(TemplateError):
        check_template(template)


SERVICES = """\
define:
  - &github-type "github-workflow"
oidc-issuers:
  https://ci.example.com:
    issuer-url: https://ci.example.com
    client-id: sigstore
    type: ci-provider
    ci-provider: *github-type
  https://issuer.enforce.example:
    issuer-url: https://issuer.enforce.example
    client-id: sigstore
    type: chainguard-identity
    contact: someone@example.com
  https://new.example.com: {client-id: sigstore, type: of-tomorrow, challenge-claim: sub}
  https://old.example.com: {client-id: sigstore, type: github-workflow}
  https://older.example.com: {client-id: sigstore, type: codefresh-workflow}
meta-issuers:
  https://*.oic.prod-aks.azure.example/*: {client-id: sigstore, type: kubernetes}
  https://old.example.com/*: {client-id: sigstore, type: gitlab-pipeline}
ci-issuer-metadata:
  *github-type:
    default-template-values: {url: "https://github.com", environment: ""}
    extension-templates:
      runner-environment: '{{if eq (index . "ci.example.com/ssh-rerun") "true"}}ssh-rerun{{ else }}""{{end}}'
    subject-alternative-name-template: "{{ .url }}/{{ .job_workflow_ref }}"
"""


def test_a_configuration_of_the_shape_of_fulcios_own_is_read_whole() -> None:
    """Fulcio starts with all of these; what this CA has no rules for is named and left out."""
    issuers = load_issuers(SERVICES, "config.yaml")
    assert list(issuers.exact) == ["https://ci.example.com"]
    assert [each.url for each in issuers.wildcards] == ["https://*.oic.prod-aks.azure.example/*"]
    told = {text.partition(": ")[0]: text for text in issuers.warnings}
    assert len(told) == 5
    assert "no issuers of type 'chainguard-identity'" in told["https://issuer.enforce.example"]
    assert "no issuers of type 'of-tomorrow'" in told["https://new.example.com"]
    assert "write type: ci-provider with ci-provider: github-workflow. Its" in told["https://old.example.com"]
    assert "ci-provider: codefresh-workflow and its templates" in told["https://older.example.com"]
    assert "ci-provider: gitlab-pipeline" in told["https://old.example.com/*"]
    assert all("skipped" in text and "refused" in text for text in told.values())
    assert issuers.find("https://old.example.com") is None


def test_a_type_with_which_fulcio_would_not_start_is_still_an_error() -> None:
    with pytest.raises(ConfigError, match="issuer missing challenge claim"):
        load_issuers(SERVICES.replace(", challenge-claim: sub", ""), "config.yaml")
