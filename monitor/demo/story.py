"""The demonstration's story: five acts, each checked, shown as a timeline."""

import json
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec import Struct, field
from rich.console import Console
from rich.text import Text

from monitor.demo.mailbox import Mailbox
from monitor.demo.processes import DemoFailed, Programs, free_ports, program, wait_until

REPOSITORY: Final = "acme/widget"
WORKFLOW: Final = ".github/workflows/release.yml"
EXPECTED_REF: Final = "refs/tags/v1.4.2"
SUBSCRIBER: Final = "mia@acme.example"
ATTACKER_REF: Final = "refs/heads/totally-legit"
_START_SECONDS: Final = 60.0
_NOTICE_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 30.0  # shorter than the delay of a certificate's alert

_CONFIG: Final = """\
version: 1
database: signwatch.db
trust:
  trusted_root: ca/trust/trusted_root.json
logs:
  - {{name: rekor-v1, api: rekor-v1, url: "{log}", start: head, poll_seconds: 1}}
  - {{name: rekor-v2, api: rekor-v2, url: "{log}", start: head, poll_seconds: 1}}
  - {{name: ct, api: ct-rfc6962, url: "{log}/ct", start: head, poll_seconds: 1}}
rules: rules.yaml
channels:
  console: {{type: stdout}}
  file: {{type: jsonl, path: alerts.jsonl}}
notify: [console, file]
web: {{listen: "127.0.0.1:{web_port}"}}
site:
  public_url: "http://127.0.0.1:{site_port}"
  listen: "127.0.0.1:{site_port}"
  key_file: site.key
  operator: the demonstration on this machine
  mail: {{server: 127.0.0.1, port: {mail_port}, security: none, from: signwatch@watch.example}}
archive: {{location: archive, write_every: 1s}}
"""

_RULES: Final = """\
version: 1
rules:
  - id: widget-release
    title: Acme Widget is released by its release workflow, from a version tag
    select:
      all:
        - identity: {{glob: "https://github.com/{repository}/**"}}
        - issuer: "{issuer}"
    expect:
      workflow: "{workflow}"
      ref: {{glob: "refs/tags/v*"}}
      trigger: [push]
"""


class Story(Struct):
    """One run of the demonstration in `folder`: the addresses, and the alerts seen so far."""

    folder: Path
    console: Console
    programs: Programs
    mailbox: Mailbox
    keep: bool = False
    began: float = field(default_factory=time.monotonic)
    log_url: str = ""
    ca_url: str = ""
    web_url: str = ""
    site_url: str = ""

    def tell(self, who: str, what: str, style: str = "") -> None:
        """Print one line of the timeline."""
        seconds = time.monotonic() - self.began
        line = Text.assemble((f"{seconds:6.1f} s  ", "dim"), (f"{who:<10}", "bold"), (what, style))
        self.console.print(line, soft_wrap=True)

    def act(self, title: str) -> None:
        """Print the heading of one part."""
        self.console.print()
        self.console.print(Text(title, style="bold underline"))

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts delivered to the JSON-lines channel so far."""
        path = self.folder / "alerts.jsonl"
        if not path.exists():
            return []
        # The daemon may be writing the last line.
        whole = path.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def status(self) -> dict[str, Any]:
        """The daemon's status document; raises `DemoFailed` when it does not answer."""
        try:
            answer = httpx.get(f"{self.web_url}/api/status.json", timeout=_NOTICE_SECONDS, trust_env=False)
            answer.raise_for_status()
            document: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise DemoFailed(f"the daemon's status page does not answer: {error}") from error
        return document


def show(folder: Path, console: Console, running: Programs, mails: Mailbox, *, keep: bool) -> Story:
    """Play all five acts. Raises `DemoFailed` at the first act that fails.

    Without `keep`, every program is stopped before the files are verified, to show that verifying needs none of them.
    """
    story = Story(folder, console, running, mails, keep)
    _set_up(story)
    _expected_signing(story)
    _subscriber(story)
    _strange_signing(story)
    _forked_log(story)
    _search(story)
    return story


def _set_up(story: Story) -> None:
    story.act("The loop, as real processes on this machine")
    log_port, ca_port, web_port, site_port = free_ports(4)
    story.site_url = f"http://127.0.0.1:{site_port}"
    story.log_url, story.ca_url = f"http://localhost:{log_port}", f"http://localhost:{ca_port}"
    story.web_url = f"http://127.0.0.1:{web_port}"
    run, start = story.programs.run, story.programs.start
    run([program("log-lite"), "init", "--dir", "log", "--url", story.log_url])
    run([program("ca-lite"), "init", "--dir", "ca", "--url", story.ca_url, "--log-trust", "log/trust.json"])
    start("log-lite", [program("log-lite"), "serve", "--dir", "log", "--ct-roots", "ca/trust/ca-chain.pem"])
    _wait_for_answer(story, "log-lite", f"{story.log_url}/healthz")
    story.tell("log-lite", f"Rekor v1, Rekor v2 and a CT log on {story.log_url}")
    start("ca-lite", [program("ca-lite"), "serve", "--dir", "ca"])
    _wait_for_answer(story, "ca-lite", f"{story.ca_url}/healthz")
    story.tell("ca-lite", f"certificates, identity tokens and timestamps on {story.ca_url}")

    config = _CONFIG.format(log=story.log_url, web_port=web_port, site_port=site_port, mail_port=story.mailbox.port)
    (story.folder / "signwatch.yaml").write_text(config, encoding="utf-8")
    issuer = f"{story.ca_url}/oidc/github"
    rules = _RULES.format(repository=REPOSITORY, issuer=issuer, workflow=WORKFLOW)
    (story.folder / "rules.yaml").write_text(rules, encoding="utf-8")
    run([program("signwatch"), "init", "--config", "signwatch.yaml"])
    start("signwatch", [program("signwatch"), "run", "--config", "signwatch.yaml"])
    _wait_for_answer(story, "signwatch", f"{story.web_url}/readyz")
    story.tell("signwatch", f"follows all three logs; status page on {story.web_url}")
    story.tell("signwatch", f"site for subscribers on {story.site_url}")
    story.tell("signwatch", f"one rule: {REPOSITORY} signs in {WORKFLOW}, from a tag refs/tags/v*")


def _wait_for_answer(story: Story, who: str, url: str) -> None:
    def answers() -> bool:
        story.programs.check_alive()
        try:
            return httpx.get(url, timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    wait_until(f"{who} to answer on {url}", answers, seconds=_START_SECONDS)


def _sign(story: Story, name: str, ref: str) -> None:
    artifact = story.folder / name
    artifact.write_text(f"release built from {ref}\n", encoding="utf-8")
    github = ["--github", REPOSITORY, "--ref", ref, "--workflow", WORKFLOW, "--event", "push"]
    token = story.programs.run([program("ca-lite"), "token", "--dir", "ca", *github]).strip()
    token_file = story.folder / f"{name}.token"
    token_file.write_text(token, encoding="utf-8")
    token_file.chmod(0o600)
    trust = ["--trust-config", "ca/trust/client_trust_config.json"]
    sign = [program("sign-lite"), "sign", name, *trust, "--identity-token-file", token_file.name]
    story.programs.run([*sign, "--rekor-version", "2", "--bundle", f"{name}.sigstore.json"])


def _verified_sizes(story: Story) -> dict[str, int]:
    return {log["name"]: log["verified_size"] for log in story.status()["logs"]}


def _sign_and_wait(story: Story, name: str, ref: str) -> None:
    before = _verified_sizes(story)
    _sign(story, name, ref)
    noticed: Callable[[], bool] = lambda: _verified_sizes(story)["rekor-v2"] > before["rekor-v2"]  # noqa: E731
    wait_until("the daemon to verify the new entry", noticed, seconds=_NOTICE_SECONDS)


def _expected_signing(story: Story) -> None:
    story.act("Act 1: a release, signed as expected")
    _sign_and_wait(story, "widget-1.4.2.tar.gz", EXPECTED_REF)
    story.tell("acme", f"signs widget-1.4.2.tar.gz in {WORKFLOW} at {EXPECTED_REF}")
    story.tell("signwatch", "hashed the entry into the signed root and judged it: expected", "green")
    if found := story.alerts():
        raise DemoFailed(f"an expected signing raised an alert: {found[0]['title']}")
    story.tell("signwatch", "0 alerts", "green")


def _subscriber(story: Story) -> None:
    """Subscribe over the web page and confirm by the mail, as a person does."""
    story.act("Act 2: a maintainer subscribes, with a browser and a mailbox")
    name = f"https://github.com/{REPOSITORY}"
    with httpx.Client(
        base_url=story.site_url, timeout=_NOTICE_SECONDS, trust_env=False, follow_redirects=True
    ) as browser:
        page = browser.get("/look", params={"name": name}).text
        if "1 signing in the name" not in page:
            raise DemoFailed("the site does not show the release that was signed")
        story.tell("mia", f"looks {REPOSITORY} up: 1 signing, from {EXPECTED_REF}")
        form = browser.get("/subscribe", params={"name": name}).text
        used = [part.partition('"')[0] for part in form.split('name="use" value="')[1:]]
        fields: dict[str, Any] = {"csrf": _csrf(form), "name": name, "ticked": "1", "use": used, "do": "subscribe"}
        _done(browser.post("/subscribe", data=fields | {"email": SUBSCRIBER}), "subscribing")
        mail = _next_mail(story, 1)
        story.tell("mailbox", f"for {SUBSCRIBER}: {mail['Subject']}")
        link = next(line for line in _text(mail).splitlines() if "/confirm/" in line).removeprefix(story.site_url)
        answer = browser.post(link, data={"csrf": _csrf(browser.get(link).text)})
        _done(answer, "confirming")
        mine = answer.text.partition('href="/subscriptions/')[2].partition("?")[0]

        def in_force() -> bool:
            return "not in force there yet" not in browser.get(f"/subscriptions/{mine}").text

        wait_until("the subscription to be in force in every log", in_force, seconds=_NOTICE_SECONDS)
    story.tell("signwatch", "confirmed; from here on every entry of three logs is compared with it", "green")


def _csrf(page: str) -> str:
    return page.partition('name="csrf" value="')[2].partition('"')[0]


def _done(answer: httpx.Response, what: str) -> None:
    if not answer.is_success:
        raise DemoFailed(f"{what} was answered with HTTP {answer.status_code}")


def _next_mail(story: Story, number: int) -> EmailMessage:
    wait_until("a mail to the subscriber", lambda: len(story.mailbox.mails()) >= number, seconds=_NOTICE_SECONDS)
    return story.mailbox.mails()[number - 1]


def _text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    return "" if body is None else str(body.get_content())


def _strange_signing(story: Story) -> None:
    story.act("Act 3: the same repository, from an attacker's branch")
    _sign_and_wait(story, "widget-1.4.3.tar.gz", ATTACKER_REF)
    story.tell("attacker", f"signs widget-1.4.3.tar.gz in {WORKFLOW} at {ATTACKER_REF}")
    wait_until("the alert", lambda: bool(story.alerts()), seconds=_NOTICE_SECONDS)
    alert = _exactly(story, 1)[0]
    story.tell("signwatch", f"1 alert: {alert['title']}", "bold red")
    for reason in alert["reasons"]:
        story.tell("", f"- {reason}", "red")
    mail = _next_mail(story, 2)
    story.tell("mailbox", f"for {SUBSCRIBER}: {mail['Subject']}", "bold red")
    for line in _text(mail).splitlines()[:2]:
        story.tell("", line, "red")
    _page_of_the_mail(story, mail)


def _page_of_the_mail(story: Story, mail: EmailMessage) -> None:
    """Open the link in the mail, as its reader does."""
    link = next(line.split()[-1] for line in _text(mail).splitlines() if f"{story.site_url}/answer/" in line)
    answer = httpx.get(link, timeout=_NOTICE_SECONDS, trust_env=False)
    _done(answer, "the page of the mail's link")
    if "Was this you?" not in answer.text or ATTACKER_REF not in answer.text:
        raise DemoFailed("the page of the mail's link does not show the attacker's signing")
    story.tell("mia", f"opens the mail's link: Was this you? It shows {ATTACKER_REF}", "red")


def _forked_log(story: Story) -> None:
    story.act("Act 4: the log rewrites its history")
    story.programs.run([program("log-lite"), "fault", "--dir", "log", "fork", "--log", "v2"])
    story.tell("log", "rewrites its Rekor v2 tree and signs the new root with the real key")
    wait_until("the alert about the fork", lambda: len(story.alerts()) > 1, seconds=_NOTICE_SECONDS)
    alert = _exactly(story, 2)[1]
    if alert["owner"] != "log-misbehaved":
        raise DemoFailed(f"expected an alert about the log, got {alert['kind']}: {alert['title']}")
    story.tell("signwatch", f"1 alert: {alert['title']}", "bold red")
    story.tell("", alert["consequence"], "red")
    signwatch = [program("signwatch"), "evidence"]
    listed = json.loads(story.programs.run([*signwatch, "list", "--json", "--config", "signwatch.yaml"]))
    evidence_id = str(listed["evidence"][0]["id"])
    exported = ["export", evidence_id, "--output", "evidence.json", "--config", "signwatch.yaml"]
    story.programs.run([*signwatch, *exported])
    story.tell("acme", "signwatch evidence export: keeps both histories, as the log signed them")
    story.programs.run([program("log-lite"), "fault", "--dir", "log", "none"])
    story.tell("log", "shows its honest history again")


def _is_archived(story: Story, alert: dict[str, Any]) -> bool:
    asked = {"q": "*", "log": alert["log"]}
    answer = httpx.get(f"{story.web_url}/api/search", params=asked, timeout=_NOTICE_SECONDS, trust_env=False)
    return answer.is_success and any(row["index"] == alert["index"] for row in answer.json()["rows"])


def _search(story: Story) -> None:
    """Search the archive for all signings of the repository, and verify the proof of that answer offline."""
    story.act("Act 5: who ever signed as acme/widget, and is that all?")
    signwatch = program("signwatch")
    alert = story.alerts()[0]
    wait_until("the signing to be archived", lambda: _is_archived(story, alert), seconds=_NOTICE_SECONDS)
    asked = ["search", f"https://github.com/{REPOSITORY}/*", "--log", "rekor-v2", "--prove", "signings.json"]
    lines = story.programs.run([signwatch, *asked, "--config", "signwatch.yaml"]).splitlines()
    story.tell("acme", f"signwatch search '{asked[1]}' --log rekor-v2 --prove signings.json")
    for _, _, entry, _, who, _, digest, *_ in (line.split("\t") for line in lines):
        story.tell("", f"entry {entry}  {who}  {digest[:23]}…")
    proof = json.loads((story.folder / "signings.json").read_text(encoding="utf-8"))
    (covered,) = proof["about"]["coverage"]["logs"]
    if len(lines) != 2 or covered["damaged"]:  # noqa: PLR2004  the expected signing and the attacker's
        raise DemoFailed(f"expected two signings in the archive, got {len(lines)}")
    spans = ", ".join(f"{first} to {end - 1}" for first, end in covered["spans"])
    story.tell("signwatch", f"that is all in entries {spans} of {covered['size']}, by a head the log signed", "green")
    if not story.keep:
        story.programs.stop()
        story.tell("demo", "stops every process: what follows needs no network and no database")
    _verified(story, "evidence.json", "the log signed both histories")
    shown = _verified(story, "signings.json", "both are in the log, even if the log hides them now")
    if not all(any(ref in line for line in shown) for ref in (EXPECTED_REF, ATTACKER_REF)):
        raise DemoFailed(f"the proof does not show both signings: {shown[-1]}")


def _verified(story: Story, file: str, meaning: str) -> list[str]:
    """Verify a file under the log's key alone; returns the lines of the result. Raises `DemoFailed`."""
    verify = ["evidence", "verify", file, "--trusted-root", "ca/trust/trusted_root.json"]
    shown = story.programs.run([program("signwatch"), *verify]).splitlines()
    story.tell("auditor", f"signwatch {' '.join(verify)}: {meaning}", "green")
    return shown


def _exactly(story: Story, count: int) -> list[dict[str, Any]]:
    """Wait for a possible duplicate alert, then check that there are `count` alerts and none is pending."""
    time.sleep(3)
    story.programs.check_alive()

    def waiting() -> int:
        return sum(int(channel["pending"]) for channel in story.status()["deliveries"])

    wait_until("every alert to be delivered or withdrawn", lambda: not waiting(), seconds=_SETTLE_SECONDS)
    found = story.alerts()
    if len(found) != count:
        titles = "; ".join(alert["title"] for alert in found)
        raise DemoFailed(f"expected exactly {count} alerts so far, got {len(found)}: {titles}")
    return found
