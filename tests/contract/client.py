"""Generates a client from the description that the running API serves, and calls every
operation through the functions and types of that client.

The environment contains the URL of the API (see run.sh); the argument is the folder to
generate into. The generated code is not kept.
"""

import datetime
import hashlib
import hmac
import os
import subprocess
import sys
import time
from http import HTTPStatus
from pathlib import Path

import httpx

URL, TOKEN, READER, SECRET = (os.environ[name] for name in ("URL", "TOKEN", "READER", "SIGNING_SECRET"))
SCRATCH = Path(sys.argv[1])


def generate():
    (SCRATCH / "config.yaml").write_text("post_hooks: []\n")
    made = subprocess.run(
        [Path(sys.executable).with_name("openapi-python-client"), "generate", "--fail-on-warning",
         "--url", URL + "/openapi.json", "--config", SCRATCH / "config.yaml", "--output-path", SCRATCH / "client"],
        capture_output=True, text=True)
    print(made.stdout.strip())
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(SCRATCH / "client"))


generate()

from profile_api_client import AuthenticatedClient, Client, models  # noqa: E402
from profile_api_client.api.default import (  # noqa: E402
    erase_customer, export_customer, explain_customer, get_activity, get_content, get_contents, get_customer,
    get_customer_head, get_customers, get_health, get_members, get_readiness, list_content, list_identifiers, patch_traits,
    preview_profile, preview_sample, put_traits, readmit_customer,
)

api = AuthenticatedClient(base_url=URL, token=TOKEN)
reader = AuthenticatedClient(base_url=URL, token=READER)
stranger = Client(base_url=URL)
steps = 0


def step(text):
    global steps
    steps += 1
    print(f"  {text}")


def refused(response, status, code):
    """An error is a Problem with the status and the code."""
    assert response.status_code == status, (response.status_code, response.content)
    assert isinstance(response.parsed, models.Problem), response.content
    assert response.parsed.error.code == code, response.parsed
    assert response.parsed.error.message


# The process, which anybody may ask.
assert get_health.sync(client=stranger).status == models.StatusStatus.OK
assert get_readiness.sync(client=stranger).status == models.StatusStatus.READY
step("health and readiness, without a token")

# A profile, whole and in part, its ETag, and one that is not there.
got = get_customer.sync_detailed("u-000001", client=api)
assert isinstance(got.parsed, models.Profile) and got.parsed.id == "u-000001"
assert got.parsed.features["orders"] > 0 and got.parsed.traits["email"]
assert isinstance(got.parsed.as_of, datetime.datetime) and got.parsed.updated_at is not None
assert got.parsed.segments is not None
step("a profile")
some = ["traits", "features.orders"]  # of all features some move by themselves, and the tag with them
tag = get_customer.sync_detailed("u-000001", client=api, fields=some).headers["ETag"]
again = get_customer.sync_detailed("u-000001", client=api, fields=some, if_none_match=tag)
assert again.status_code == HTTPStatus.NOT_MODIFIED and again.content == b""
assert get_customer_head.sync_detailed("u-000001", client=api).content == b""
step("304 for the ETag that it had, and its headers alone")
part = get_customer.sync("u-000001", client=api, fields=["traits.email", "features.orders"])
assert part.traits.additional_properties.keys() == {"email"} and part.features.additional_properties.keys() == {"orders"}
step("of a profile what fields name")
then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
past = get_customer.sync("u-000002", client=api, as_of=then)
assert abs(past.as_of - then) < datetime.timedelta(milliseconds=1)
assert get_customer.sync("u-000002", client=api, as_of=int(then.timestamp())).as_of == then.replace(microsecond=0)
step("a profile as of an hour ago, as a time and as seconds")
refused(get_customer.sync_detailed("nobody", client=api), 404, "no_such_customer")

# By e-mail address in place of the id.
assert list_identifiers.sync(client=api).identifiers == ["email"]
address = part.traits["email"]
assert get_customer.sync(address.upper(), client=api, by="email").id == "u-000001"
found = get_customers.sync(client=api, body=models.BatchQuestion(ids=["nobody@example.com", address], by="email"))
assert [entry.found for entry in found.customers] == [False, True] and found.customers[1].profile.id == "u-000001"
refused(get_customer.sync_detailed(address, client=api, by="fax"), 400, "unknown_identifier")
refused(get_customer.sync_detailed("nobody@example.com", client=api, by="email"), 404, "no_such_customer")
step("a profile by e-mail address, alone and in a batch")
refused(get_customer.sync_detailed("u-000001", client=api, fields=["features.none"]), 400, "unknown_field")
refused(get_customer.sync_detailed("u-000001", client=api, as_of=0), 400, "as_of_too_early")
refused(get_customer.sync_detailed("u-000001", client=stranger), 401, "unauthenticated")
refused(erase_customer.sync_detailed("u-000001", client=reader), 403, "forbidden")
step("errors, as Problem with their codes")

# Many at once, in order.
ids = [f"u-{n:06d}" for n in range(1, 21)] + ["nobody"]
batch = get_customers.sync(client=api, body=models.BatchQuestion(ids=ids), fields=["features.orders"])
assert [entry.id for entry in batch.customers] == ids
assert batch.customers[0].found and batch.customers[0].profile.features["orders"] == got.parsed.features["orders"]
assert not batch.customers[-1].found
step(f"a batch of {len(ids)}")

# A segment, page by page.
members, after, pages = [], None, 0
while True:
    page = get_members.sync("new_prospect", client=api, limit=3, **({"after": after} if after else {}))
    members += [member.id for member in page.customers]
    pages += 1
    after = page.next_
    if after is None:
        break
assert len(members) == len(set(members)) == page.count > 3, (members, page.count)
refused(get_members.sync_detailed("none", client=api), 404, "no_such_segment")
step(f"a segment of {page.count} in {pages} pages")

# Content.
blocks = list_content.sync(client=api).blocks
assert "loyalty_banner" in [block.name for block in blocks]
banner = get_content.sync_detailed("u-000001", "loyalty_banner", client=api)
assert isinstance(banner.parsed, str) and "gold member" in banner.parsed or "Gold for you" in banner.parsed
assert get_content.sync_detailed("u-000001", "loyalty_banner", client=api, if_none_match=banner.headers["ETag"]).status_code == 304
assert "Gold for you, Ada" in preview_sample.sync("loyalty_banner", client=api, sample="a gold member")
made_up = models.PreviewQuestion.from_dict({"profile": {"traits": {"firstName": "Grace"}, "features": {"revenue_90d": 900}}})
assert "Gold for you, Grace" in preview_profile.sync("loyalty_banner", client=api, body=made_up)
contents = get_contents.sync("loyalty_banner", client=api, body=models.BatchQuestion(ids=["u-000001", "nobody"])).contents
assert contents[0].content == banner.parsed and contents[1].fallback == models.ContentEntryFallback.NO_CUSTOMER
refused(get_content.sync_detailed("u-000001", "none", client=api), 404, "no_such_block")
step("content: one, a batch, previews")

# A signed address, which a platform fetches without the client.
target = f"/api/customer/u-000001/content/loyalty_banner?expires={int(time.time()) + 60}&key=newsletter"
signed = target + "&signature=" + hmac.new(SECRET.encode(), target.encode(), hashlib.sha256).hexdigest()
assert httpx.get(URL + signed).text == banner.parsed
step("the same content by a signed address")

# Traits, for an id that needs encoding.
odd = "ann/b c?d#e%2F é"
written = patch_traits.sync(odd, client=api, body=models.Traits.from_dict({"plan": "gold", "nickname": "Jo"}))
assert isinstance(written, models.Written) and written.id == odd and written.message_id
assert get_customer.sync(odd, client=api).traits.to_dict() == {"plan": "gold", "nickname": "Jo"}
put_traits.sync(odd, client=api, body=models.Traits.from_dict({"plan": "silver"}), idempotency_key="k-1")
assert get_customer.sync(odd, client=api).traits.to_dict() == {"plan": "silver"}
step("traits set, and replaced")

# Why, how much, and everything.
assert explain_customer.sync("u-000001", client=api).features
held = export_customer.sync(odd, client=api)
assert held.id == odd and [trait["value"] for trait in held.traits if trait["name"] == "plan"] == ["silver"]
assert get_activity.sync(client=api).events.taken >= 3000
step("an explanation, an export, the activity")

# Gone, and kept from coming back until readmitted.
erased = erase_customer.sync(odd, client=api)
assert isinstance(erased, models.Erasure) and erased.erased
refused(get_customer.sync_detailed(odd, client=api), 404, "no_such_customer")
refused(patch_traits.sync_detailed(odd, client=api, body=models.Traits.from_dict({"plan": "gold"})), 409, "erased")
assert not readmit_customer.sync(odd, client=api).erased
refused(readmit_customer.sync_detailed(odd, client=api), 404, "not_erased")
patch_traits.sync(odd, client=api, body=models.Traits.from_dict({"plan": "free"}))
assert get_customer.sync(odd, client=api).traits.to_dict() == {"plan": "free"}
step("erased, refused, readmitted")

print(f"the generated client did {steps} steps")
