"""The journeys of a subscriber over HTTP: what each page says and what each button does."""

from tests.site.scene import REPOSITORY, Scene, link_in, shown, text_of


def test_a_name_is_looked_up_without_an_account_and_the_odd_signing_stands_out(acme: Scene) -> None:
    acme.a_year()
    page = shown(acme.visitor().get("/look", params={"name": REPOSITORY}))
    assert "One signing does not look like the others" in page
    assert "refs/heads/totally-legit" in page
    assert "What this answer covers" in page


def test_a_mistyped_address_is_repaired_and_never_searched_for(acme: Scene) -> None:
    for typed, repair in (
        ("https://gihub.com/acme/widget", "https://github.com/acme/widget"),
        ("htps:/github.com/acme/widget", "https://github.com/acme/widget"),
        ("acme/widget", "https://github.com/acme/widget"),
        ("release@gmial.com", "release@gmail.com"),
    ):
        page = shown(acme.visitor().get("/look", params={"name": typed}, expect=400))
        assert f"Did you mean {repair}" in page


def test_what_is_copied_from_a_browser_or_a_terminal_is_the_repository(acme: Scene) -> None:
    acme.sign()
    for typed in (
        "git@github.com:acme/widget.git",
        "https://github.com/acme/widget/releases/tag/v1",
        "github.com/Acme/Widget",
    ):
        answer = acme.visitor().http.get("/look", params={"name": typed}, follow_redirects=True)
        assert "1 signing in the name" in shown(answer)


def test_a_subscriber_confirms_by_one_mail_and_sees_the_subscription(acme: Scene) -> None:
    acme.a_year()
    visitor = acme.visitor()
    fields = {"name": REPOSITORY, "email": "mia@acme.example", "do": "subscribe"}
    page = visitor.post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
    assert "Look into your mailbox" in shown(page)
    acme.deliver()
    [mail] = acme.mailbox.to("mia@acme.example")
    assert "built on tags v…" in text_of(mail)
    link = link_in(mail, "confirm")
    assert "Yes, tell me" in shown(visitor.get(link))
    assert "You are subscribed" in shown(visitor.post(link, page=link, expect=200))
    assert "acme/widget" in shown(visitor.get("/subscriptions"))
    used = shown(visitor.get(link, expect=410))
    assert "used already" in used


def test_another_browser_confirms_but_is_not_signed_in(acme: Scene) -> None:
    asking, phone = acme.visitor(), acme.visitor()
    fields = {"name": REPOSITORY, "email": "mia@acme.example", "do": "subscribe"}
    asking.post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
    acme.deliver()
    link = link_in(acme.mailbox.to("mia@acme.example")[-1], "confirm")
    assert "You are subscribed" in shown(phone.post(link, page=link, expect=200))
    phone.get("/subscriptions", expect=401)
    asking.get("/subscriptions", expect=401)


def test_signing_in_works_once_in_the_browser_that_asked(acme: Scene) -> None:
    acme.subscribe(acme.visitor(), "mia@acme.example")
    mine, thief = acme.visitor(), acme.visitor()
    mine.post("/sign-in", {"email": "mia@acme.example"})
    acme.deliver()
    link = link_in(acme.mailbox.to("mia@acme.example")[-1], "sign-in")
    assert "in the browser that asked" in shown(thief.post(link, page=link, expect=403))
    mine.post(link, page=link)
    mine.get("/subscriptions")
    assert "used already" in shown(mine.get(link, expect=410))
    mine.post("/sign-out", page="/account")
    mine.get("/subscriptions", expect=401)


def test_sixty_four_digits_without_colons_are_a_digest_and_the_page_offers_the_fingerprint(acme: Scene) -> None:
    page = acme.visitor().get("/look", params={"name": f"sha256:{'ab' * 32}"})
    assert "Is it a key's fingerprint?" in shown(page)
    link = page.text.partition('href="/look?name=ab')[2].partition('"')[0]
    assert "This key was looked" in shown(acme.visitor().get(f"/look?name=ab{link}"))


def test_the_page_that_confirms_shows_that_this_browser_is_signed_in_and_no_other(acme: Scene) -> None:
    mia, elsewhere = acme.visitor(), acme.visitor()
    for asking, opening in ((mia, mia), (acme.visitor(), elsewhere)):
        fields = {"name": REPOSITORY, "email": "mia@acme.example", "do": "subscribe"}
        asking.post("/subscribe", fields, page=f"/subscribe?name={REPOSITORY}")
        acme.deliver()
        link = link_in(acme.mailbox.to("mia@acme.example")[-1], "confirm")
        page = opening.post(link, page=link, expect=200).text
        assert ('href="/account"' in page) is (opening is mia)
        opening.get("/subscriptions", expect=200 if opening is mia else 401)
