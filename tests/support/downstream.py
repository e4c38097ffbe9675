"""A whole downstream server, by a SOAP toolkit that takes nothing but what the published schemas allow.

    downstream.py ROOT WSDLS [ANCHORS]

asks the upstream at ROOT for everything, as the interfaces in the folder WSDLS say, checks each answer, and
prints as JSON what it found. With ANCHORS, a file of what an earlier run printed, it asks for what changed
since then.
"""

import base64
import hashlib
import json
import pathlib
import sys
import uuid
from datetime import datetime, timezone
from urllib.parse import urljoin

import requests
import zeep
from lxml import etree
from zeep.exceptions import Fault

ROOT, WSDLS = sys.argv[1].rstrip("/") + "/", pathlib.Path(sys.argv[2])
EARLIER = json.loads(pathlib.Path(sys.argv[3]).read_text()) if len(sys.argv) > 3 else None
UPDATE = "{http://schemas.microsoft.com/msus/2002/12/Update}"
SYNC = "{http://www.microsoft.com/SoftwareDistribution}"
DSS = "{http://www.microsoft.com/SoftwareDistribution/Server/DssAuthWebService}"
NOBODY = {"Expiration": datetime.max.replace(tzinfo=timezone.utc), "EncryptedData": b""}
ZERO = "00000000-0000-0000-0000-000000000000"


def service(file, binding, path):
    session = requests.Session()
    session.trust_env = False
    transport = zeep.Transport(session=session, timeout=60, operation_timeout=60)
    settings = zeep.Settings(strict=True, xml_huge_tree=True)
    client = zeep.Client(str(WSDLS / file), transport=transport, settings=settings)
    return client.create_service(binding, urljoin(ROOT, path))


def refused(code, message, call, *args, **named):
    """The call must fail with this code, and name this."""
    try:
        answer = call(*args, **named)
    except Fault as fault:
        said = (fault.detail.findtext("ErrorCode"), fault.detail.findtext("Message"))
        assert said == (code, message), f"want the fault {code} {message!r}, got {said}"
        uuid.UUID(fault.detail.findtext("ID"))
        return
    raise AssertionError(f"want the fault {code}, got {answer}")


def each(of, name):
    """The items of a list, which the toolkit makes nothing of where it is empty."""
    return (of[name] if of is not None else None) or []


sync = service(
    "server-sync.wsdl", SYNC + "ServerSyncProxySoap", "ServerSyncWebService/ServerSyncWebService.asmx"
)
for plug_in in sync.GetAuthConfig().AuthInfo.AuthPlugInInfo:
    assert plug_in.PlugInID == "DssTargeting", plug_in
# A real downstream puts a slash too many in between.
auth = service("dss-auth.wsdl", DSS + "DssAuthWebServiceSoap", "//".join([ROOT, plug_in.ServiceUrl]))
reports = service(
    "server-reporting.wsdl", SYNC + "WebServiceSoap", "ReportingWebService/ReportingWebService.asmx"
)
for one in (sync, auth, reports):
    pong = one.Ping(pingLevel=1)
    assert pong.SuccessFlag and not pong.IsHttps, pong

# Who it is.
account = str(uuid.uuid4())
refused("InvalidParameters", "accountGuid", auth.GetAuthorizationCookie, "down.example", "me")
refused("InvalidParameters", "accountName", auth.GetAuthorizationCookie, "a b", account)
known = auth.GetAuthorizationCookie(accountName="down.example", accountGuid=account)
assert known.PlugInId == "DssTargeting" and known.CookieData
one = {"AuthorizationCookie": [known]}
forged = {"AuthorizationCookie": [{"PlugInId": "DssTargeting", "CookieData": b"x" * 64}]}
refused("InvalidAuthorizationCookie", "authCookies", sync.GetCookie, forged, None, "1.20")
refused("IncompatibleProtocolVersion", "2.0", sync.GetCookie, one, None, "2.0")
refused("InvalidParameters", "protocolVersion", sync.GetCookie, one, None, "one")
cookie = sync.GetCookie(authCookies=one, protocolVersion="1.20")
assert cookie.Expiration > datetime.now(timezone.utc), cookie
refused("InvalidCookie", "cookie", sync.GetConfigData, NOBODY)

config = sync.GetConfigData(cookie=cookie)
again = sync.GetConfigData(cookie=cookie, configAnchor=config.NewConfigAnchor)
assert again.ProtocolVersion == config.ProtocolVersion
batch = config.MaxNumberOfUpdatesPerRequest
languages = [it.ShortLanguage for it in config.LanguageUpdateList.ServerSyncLanguageData if it.Enabled]


def revisions(config, anchor=None, categories=None, classifications=None, delta=False):
    """A list of revisions, and where to go on."""
    wanted = lambda ids: {"IdAndDelta": [{"Id": id, "Delta": delta} for id in ids]}
    asked = {"GetConfig": config, "Get63LanguageOnly": False, "Anchor": anchor}
    if categories is not None:
        asked["Categories"] = wanted(categories)
    if classifications is not None:
        asked["Classifications"] = wanted(classifications)
    answer = sync.GetRevisionIdList(cookie=cookie, filter=asked)
    found = [(it.UpdateID, it.RevisionNumber) for it in each(answer.NewRevisions, "UpdateIdentity")]
    assert len(found) == len(set(found)), "a revision is listed twice"
    return found, answer.Anchor


def identities(of):
    return {"UpdateIdentity": [{"UpdateID": id, "RevisionNumber": n} for id, n in of]}


def document(update):
    """The document of an answer, in the clear or compressed."""
    if update.XmlUpdateBlob is not None:
        return update.XmlUpdateBlob
    raise AssertionError("this upstream sends documents in the clear")


def updates(of):
    """What the revisions are, asked for in batches, and where their files are."""
    found, urls = {}, {}
    for at in range(0, len(of), batch):
        part = of[at : at + batch]
        answer = sync.GetUpdateData(cookie=cookie, updateIds=identities(part))
        came = each(answer.updates, "ServerSyncUpdateData")
        said = [(it.Id.UpdateID, it.Id.RevisionNumber) for it in came]
        assert said == part, "other revisions than were asked for"
        for update in came:
            root = etree.fromstring(document(update))
            assert root.tag == UPDATE + "Update", root.tag
            identity = root.find(UPDATE + "UpdateIdentity")
            stated = (identity.get("UpdateID").lower(), int(identity.get("RevisionNumber")))
            assert stated == (update.Id.UpdateID.lower(), update.Id.RevisionNumber), stated
            digests = each(update.FileDigestList, "base64Binary")
            files = root.findall(f"{UPDATE}Files/{UPDATE}File")
            assert {it.get("Digest") for it in files} == {encoded(it) for it in digests}, stated
            found[stated] = root
        for url in each(answer.fileUrls, "ServerSyncUrlData"):
            urls[url.FileDigest] = url
    return found, urls


def encoded(digest):
    return base64.b64encode(digest).decode()


def properties(root, name):
    return root.find(UPDATE + "Properties").get(name)


def kind(root):
    data = [it.get("CategoryType") for it in root.iter() if it.tag.endswith("}CategoryInformation")]
    return data[0] if data else properties(root, "UpdateType")


def categories(root):
    """The categories that an update says that it is of."""
    groups = root.iterfind(f"{UPDATE}Relationships/{UPDATE}Prerequisites/{UPDATE}AtLeastOne")
    return {it.get("UpdateID").lower() for group in groups for it in group}


def bundled(root):
    parts = root.iterfind(f"{UPDATE}Relationships/{UPDATE}BundledUpdates//{UPDATE}UpdateIdentity")
    return {it.get("UpdateID").lower() for it in parts}


# Categories first: what there is to choose from.
earlier = EARLIER or {}
listed, config_anchor = revisions(True, earlier.get("config_anchor"))
config_documents, none = updates(listed)
assert not none, "a category has no files"
classes = [id for (id, _), root in config_documents.items() if kind(root) == "UpdateClassification"]
products = [id for (id, _), root in config_documents.items() if kind(root) in ("Product", "ProductFamily")]
classes, products = classes or earlier["classes"], products or earlier["products"]
refused("InvalidParameters", "filter", revisions, True, "yesterday")
refused("ServerChanged", "filter", revisions, True, "2147483646,2026-01-01 00:00:00.000")

# Updates: everything; what was chosen; what is meant by one list alone.
delta = EARLIER is not None
listed, anchor = revisions(False, earlier.get("anchor"), products, classes, delta)
found, urls = updates(listed)
everything, _ = revisions(False)
whole, whole_urls = updates(everything)
assert set(found) <= set(whole)
assert revisions(False, None, products, None)[0] == []
assert revisions(False, None, [], classes)[0] == []
assert revisions(False, anchor, products, classes, True)[0] == [], "nothing changed since"
assert set(revisions(False, anchor, products, classes, False)[0]) >= set(listed)
for wanted in classes:
    chosen, _ = revisions(False, None, products, [wanted])
    chosen = {it: whole[it] for it in chosen}
    parts = set().union(*map(bundled, chosen.values())) if chosen else set()
    for (id, _), root in chosen.items():
        assert wanted.lower() in categories(root) or id in parts, f"{id} is not of {wanted}"
for wanted in products:
    chosen, _ = revisions(False, None, [wanted], classes)
    assert set(chosen) <= set(whole)

# What it may not ask for.
unknown = (str(uuid.uuid4()), 1)
refused("InvalidParameters", "updateIds", sync.GetUpdateData, cookie, identities([]))
refused("InvalidParameters", "updateIds", sync.GetUpdateData, cookie, identities([unknown] * (batch + 1)))
refused("InternalServerError", "", sync.GetUpdateData, cookie, identities(everything[:1] + [unknown]))

# Files: which are known, and those that are there.
digests = [bytes(it) for it in whole_urls]
if digests:
    sync.DownloadFiles(cookie=cookie, fileDigestList={"base64Binary": digests[:100]})
no_file = hashlib.sha1(b"nothing").digest()
asked = {"base64Binary": digests[:1] + [no_file]}
refused("FileDigestsMissing", encoded(no_file), sync.DownloadFiles, cookie, asked)
refused("InvalidParameters", "fileDigestList", sync.DownloadFiles, cookie, {"base64Binary": []})
held = []
session = requests.Session()
session.trust_env = False
for (id, revision), root in whole.items():
    for file in root.iterfind(f"{UPDATE}Files/{UPDATE}File"):
        digest = base64.b64decode(file.get("Digest"))
        url = whole_urls[digest].UssUrl
        if url is None:
            continue
        name = digest.hex().upper()
        assert url.startswith(f"{ROOT}Content/{name[-2:]}/{name}"), url
        answer = session.get(url, timeout=60)
        if answer.status_code == 404:
            continue
        assert answer.status_code == 200, f"{url}: {answer.status_code}"
        assert len(answer.content) == int(file.get("Size")), url
        assert hashlib.sha1(answer.content).digest() == digest, url
        sha256 = base64.b64encode(hashlib.sha256(answer.content).digest()).decode()
        stated = [it.text for it in file if it.get("Algorithm") == "SHA256"]
        assert stated in ([], [sha256]), url
        rest = session.get(url, headers={"Range": "bytes=1-"}, timeout=60)
        assert (rest.status_code, rest.content) == (206, answer.content[1:]), url
        held.append(file.get("FileName"))

# What this upstream has none of.
keys = sync.GetUpdateDecryptionData(cookie=cookie, updateIds=identities(everything[:batch]))
assert not each(keys, "UpdateFileDecryptionData")
refused("InternalServerError", "", sync.GetUpdateDecryptionData, cookie, identities([unknown]))
refused("InvalidParameters", "syncAnchor", sync.GetDeployments, cookie)
deployed = sync.GetDeployments(cookie=cookie, syncAnchor=anchor)
again = sync.GetDeployments(cookie=cookie, deploymentAnchor=deployed.Anchor, syncAnchor=anchor)
for it in (deployed, again):
    lists = [it.Groups, it.Deployments, it.DeadDeployments, it.HiddenUpdates, it.AcceptedEulas]
    assert it.Anchor and lists == [None] * 5, it

# Reports.
now = datetime.now(timezone.utc)
rules = reports.GetRollupConfiguration(cookie=NOBODY)
assert not rules.DoDetailedRollup
assert rules.ServerId == reports.GetRollupConfiguration(cookie=NOBODY).ServerId != rules.RollupResetGuid
refused("InvalidCookie", "cookie", reports.GetRollupConfiguration)
me = {
    "ServerId": account,
    "FullDomainName": "down.example",
    "LastSyncTime": now,
    "ParentServerId": ZERO,
    "Version": "10.0",
    "IsReplica": False,
    "LastRollupTime": datetime(1753, 1, 1),
}
reports.RollupDownstreamServers(NOBODY, now, {"DownstreamServerRollupInfo": [me]})
most = rules.RollupDownstreamServersMaxBatchSize + 1
many = {"DownstreamServerRollupInfo": [me] * most}
refused("InvalidParameters", "downstreamServers", reports.RollupDownstreamServers, NOBODY, now, many)
assert reports.GetOutOfSyncComputers(NOBODY, account) is None
assert reports.RollupComputerStatus(NOBODY, now, account, {}) is True

print(
    json.dumps(
        {
            "anchor": anchor,
            "config_anchor": config_anchor,
            "classes": classes,
            "products": products,
            "languages": languages,
            "categories": len(config_documents),
            "updates": [
                {
                    "id": id,
                    "revision": revision,
                    "titles": [it.text for it in root.iter(UPDATE + "Title")],
                    "state": properties(root, "PublicationState"),
                    "kind": kind(root),
                }
                for (id, revision), root in sorted(found.items())
            ],
            "everything": sorted({id for id, _ in everything}),
            "held": sorted(held),
        }
    )
)
