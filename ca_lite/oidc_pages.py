"""The two pages a person sees: log in, and approve a device. Everything shown is escaped by Jinja2."""

from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ca-lite: {{ title }}</title>
<style>
 :root { color-scheme: light dark }
 body { font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 3rem auto; padding: 0 1rem }
 label { display: block; margin: 1rem 0 }
 input { display: block; width: 100%; padding: .5rem; box-sizing: border-box; font: inherit }
 button { padding: .5rem 1rem; font: inherit } .problem { border-left: .25rem solid #b00; padding-left: .75rem }
 code { user-select: all; word-break: break-all }
</style>
<body><main><h1>{{ title }}</h1>
{% if development %}<p class="problem"><strong>Development login.</strong> Who has the secret can sign as any person:
a signature made with it proves nothing. An operator replaces it with users (<code>ca-lite users add</code>) or with a
company's issuer (<code>ca-lite connect</code>).</p>{% endif %}
{% if problem %}<p class="problem" role="alert">{{ problem }}</p>{% endif %}
{% block body %}{% endblock %}</main></body></html>
"""

_LOGIN: Final = """{% extends "page" %}{% block body %}
<p>A program on this machine asks for a signing identity at {{ issuer }}.</p>
<form method="post">
{% for name, value in hidden.items() %}<input type="hidden" name="{{ name }}" value="{{ value }}">
{% endfor %}<label>E-mail address <input name="email" type="email" required autofocus autocomplete="email"></label>
<label>{{ "Login secret" if development else "Password" }}
<input name="secret" type="password" required autocomplete="current-password"></label>
{% if development %}<p>The secret is in <code>private/login-secret</code> of the CA's directory.</p>{% endif %}
<button>Sign in</button></form>{% endblock %}"""

_DEVICE: Final = """{% extends "page" %}{% block body %}
<p>Approve only a code that you see on a device in front of you.</p>
<form method="post">
<label>Code <input name="user_code" required autocapitalize="characters" value="{{ user_code }}"></label>
<label>E-mail address <input name="email" type="email" required autocomplete="email"></label>
<label>{{ "Login secret" if development else "Password" }}
<input name="secret" type="password" required autocomplete="current-password"></label>
<button name="decision" value="approve">Approve</button> <button name="decision" value="deny">Deny</button>
</form>{% endblock %}"""

_MESSAGE: Final = """{% extends "page" %}{% block body %}<p>{{ text }}</p>
{% if code %}<p><code>{{ code }}</code></p>{% endif %}{% endblock %}"""

_environment: Final = Environment(
    loader=DictLoader({"page": _PAGE, "login": _LOGIN, "device": _DEVICE, "message": _MESSAGE}),
    autoescape=True,
    undefined=StrictUndefined,
)


def page(name: str, title: str, problem: str = "", *, development: bool = False, **values: Any) -> str:
    """HTML of `login`, `device` or `message`; with `development` the page warns that the login proves no identity."""
    return _environment.get_template(name).render(title=title, problem=problem, development=development, **values)
