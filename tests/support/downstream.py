"""A downstream of a server of updates that takes the published interface definitions at their word.

Arguments: the folder with the definitions, the address of the server. It does what a downstream server does: it
shows itself, asks what the server is like, which revisions there are, and for their documents. zeep checks each
answer against the schema in strict mode; what does not fit fails here. What was found is printed as JSON.
"""

import json
import sys
import urllib.request
from xml.etree import ElementTree

from zeep import Client, Settings
from zeep.exceptions import Fault

definitions, root = sys.argv[1], sys.argv[2]
settings = Settings(strict=True, xml_huge_tree=True)


def service(definition, path):
    client = Client(f"{definitions}/{definition}", settings=settings)
    binding = next(iter(client.wsdl.bindings))
    return client, client.create_service(str(binding), f"{root}/{path}")


sync_client, sync = service("server-sync.wsdl", "ServerSyncWebService/ServerSyncWebService.asmx")
config = sync.GetAuthConfig()
plug_in = config.AuthInfo.AuthPlugInInfo[0]
# A real downstream server asks with the slash twice.
_, dss = service("dss-auth.wsdl", "/" + plug_in.ServiceUrl)
authorization = dss.GetAuthorizationCookie("branch.example", "11111111-2222-3333-4444-555555555555")
cookie = sync.GetCookie(
    {"AuthorizationCookie": [{"PlugInId": authorization.PlugInId, "CookieData": authorization.CookieData}]},
    None,
    "1.20",
)
limits = sync.GetConfigData(cookie, None)


def revisions(config, anchor=None):
    answer = sync.GetRevisionIdList(
        cookie, {"Anchor": anchor, "GetConfig": config, "Get63LanguageOnly": False}
    )
    found = answer.NewRevisions.UpdateIdentity if answer.NewRevisions else []
    return answer.Anchor, found or []


def documents(identities):
    found, urls = [], {}
    for at in range(0, len(identities), limits.MaxNumberOfUpdatesPerRequest):
        part = identities[at : at + limits.MaxNumberOfUpdatesPerRequest]
        answer = sync.GetUpdateData(cookie, {"UpdateIdentity": part})
        for update in answer.updates.ServerSyncUpdateData:
            ElementTree.fromstring(update.XmlUpdateBlob)
            found.append(update.Id.UpdateID)
        for url in answer.fileUrls.ServerSyncUrlData if answer.fileUrls else []:
            urls[url.FileDigest.hex()] = url.MUUrl or url.UssUrl
    return found, urls


_, categories = revisions(True)
anchor, updates = revisions(False)
n_categories = len(documents(categories)[0])
found, urls = documents(updates)
_, later = revisions(False, anchor)

faults = []
for call in [
    lambda: sync.GetUpdateData(cookie, {"UpdateIdentity": [{"UpdateID": "00000000-0000-0000-0000-000000000001", "RevisionNumber": 1}]}),
    lambda: sync.GetConfigData({"Expiration": cookie.Expiration, "EncryptedData": b"no cookie"}, None),
    lambda: sync.DownloadFiles(cookie, {"base64Binary": [b"0" * 20]}),
]:
    try:
        call()
        faults.append(None)
    except Fault as fault:
        faults.append(fault.detail.find("ErrorCode").text)

print(
    json.dumps(
        {
            "protocol": limits.ProtocolVersion,
            "categories": n_categories,
            "updates": sorted(found),
            "files": len(urls),
            "later": len(later),
            "faults": faults,
        }
    )
)
