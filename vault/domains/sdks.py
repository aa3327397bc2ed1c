"""Code examples that read a secret, one per language.

The Python example uses the vendor's package, which the tests use too. No package could be verified for the other
languages, and naming an unregistered package would invite package squatting. Their examples sign the request with the
standard library. .NET has no Ed25519 there.
"""

from __future__ import annotations

from typing import NamedTuple

from vault.errors import Refusal
from vault.router import Call, Route


class Sdk(NamedTuple):
    """One language."""

    id: str
    name: str
    package: str | None
    install: str | None
    example: str


PYTHON = """\
from sikkerkey import SikkerKey

client = SikkerKey("VAULT_ID")  # in a CI job: SikkerKey.bootstrap_in_memory("VAULT_ID", ENROLLMENT_TOKEN)
value = client.get_secret("SECRET_ID")
"""

NODE = """\
import { createHash, createPrivateKey, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { homedir } from "node:os";

const identity = JSON.parse(readFileSync(`${homedir()}/.sikkerkey/vaults/VAULT_ID/identity.json`, "utf8"));
const key = createPrivateKey(readFileSync(identity.privateKeyPath));
const path = "/v1/secret/SECRET_ID";
const timestamp = String(Math.floor(Date.now() / 1000));
const nonce = randomBytes(16).toString("base64");
const signed = `GET:${path}:${timestamp}:${nonce}:${createHash("sha256").digest("hex")}`;
const headers = {
  "X-Machine-Id": identity.machineId,
  "X-Timestamp": timestamp,
  "X-Nonce": nonce,
  "X-Signature": sign(null, Buffer.from(signed), key).toString("base64"),
};
const answer = await fetch(identity.apiUrl + path, { headers, redirect: "error" });
if (answer.status !== 200) throw new Error(`the vault answered ${answer.status}`);
const { value } = await answer.json();
"""

GO = """\
func readSecret(baseURL, machineID, secretID string, key ed25519.PrivateKey) (string, error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	path, nonce := "/v1/secret/"+secretID, base64.StdEncoding.EncodeToString(random)
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	signed := fmt.Sprintf("GET:%s:%s:%s:%x", path, timestamp, nonce, sha256.Sum256(nil))
	request, err := http.NewRequest("GET", baseURL+path, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("X-Machine-Id", machineID)
	request.Header.Set("X-Timestamp", timestamp)
	request.Header.Set("X-Nonce", nonce)
	request.Header.Set("X-Signature", base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(signed))))
	answer, err := http.DefaultTransport.RoundTrip(request) // follows no redirect
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return "", fmt.Errorf("the vault answered %d", answer.StatusCode)
	}
	var secret struct{ Value string }
	err = json.NewDecoder(answer.Body).Decode(&secret)
	return secret.Value, err
}
"""

DOTNET = """\
// Ed25519 comes from the package NSec.Cryptography: dotnet add package NSec.Cryptography
static async Task<string> ReadSecret(string baseUrl, string machineId, string secretId, byte[] pem)
{
    var algorithm = SignatureAlgorithm.Ed25519;
    using var key = Key.Import(algorithm, pem, KeyBlobFormat.PkixPrivateKeyText);
    var path = $"/v1/secret/{secretId}";
    var timestamp = DateTimeOffset.UtcNow.ToUnixTimeSeconds().ToString();
    var nonce = Convert.ToBase64String(RandomNumberGenerator.GetBytes(16));
    var bodyHash = Convert.ToHexString(SHA256.HashData(Array.Empty<byte>())).ToLowerInvariant();
    var signed = Encoding.UTF8.GetBytes($"GET:{path}:{timestamp}:{nonce}:{bodyHash}");
    using var client = new HttpClient(new HttpClientHandler { AllowAutoRedirect = false });
    client.DefaultRequestHeaders.Add("X-Machine-Id", machineId);
    client.DefaultRequestHeaders.Add("X-Timestamp", timestamp);
    client.DefaultRequestHeaders.Add("X-Nonce", nonce);
    client.DefaultRequestHeaders.Add("X-Signature", Convert.ToBase64String(algorithm.Sign(key, signed)));
    var answer = await client.GetAsync(baseUrl + path);
    answer.EnsureSuccessStatusCode();
    using var secret = JsonDocument.Parse(await answer.Content.ReadAsStringAsync());
    return secret.RootElement.GetProperty("value").GetString()!;
}
"""

KOTLIN = """\
// The answer is {"value": "..."}: hand it to the JSON library of your program.
fun readSecret(baseUrl: String, machineId: String, secretId: String, key: PrivateKey): String {
    val base64 = Base64.getEncoder()
    val path = "/v1/secret/$secretId"
    val timestamp = Instant.now().epochSecond
    val nonce = base64.encodeToString(ByteArray(16).also { SecureRandom().nextBytes(it) })
    val bodyHash = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest())
    val signer = Signature.getInstance("Ed25519").apply { initSign(key) }
    signer.update("GET:$path:$timestamp:$nonce:$bodyHash".toByteArray())
    val request = HttpRequest.newBuilder(URI.create(baseUrl + path))
        .header("X-Machine-Id", machineId)
        .header("X-Timestamp", timestamp.toString())
        .header("X-Nonce", nonce)
        .header("X-Signature", base64.encodeToString(signer.sign()))
        .build()
    val answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString())
    check(answer.statusCode() == 200) { "the vault answered ${answer.statusCode()}" }
    return answer.body()
}
"""

# fmt: off
SDKS = (
    Sdk("python", "Python",  "sikkerkey", "pip install sikkerkey", PYTHON),
    Sdk("node",   "Node.js", None,        None,                    NODE),
    Sdk("go",     "Go",      None,        None,                    GO),
    Sdk("dotnet", ".NET",    None,        None,                    DOTNET),
    Sdk("kotlin", "Kotlin",  None,        None,                    KOTLIN),
)
# fmt: on


def list_all(_call: Call) -> object:
    """All languages."""
    return [{"id": sdk.id, "name": sdk.name, "packageName": sdk.package} for sdk in SDKS]


def get(call: Call) -> object:
    """The install command and the code example for one language."""
    for sdk in SDKS:
        if sdk.id == call.params["sdkId"]:
            shown = {"id": sdk.id, "name": sdk.name, "packageName": sdk.package}
            return {**shown, "installCommand": sdk.install, "example": sdk.example}
    raise Refusal(404, f"no such SDK: there are {', '.join(sdk.id for sdk in SDKS)}")


# fmt: off
ROUTES = (
    Route("GET", "/v1/ai/sdks",         None, list_all, reads=True),
    Route("GET", "/v1/ai/sdks/{sdkId}", None, get, reads=True),
)
# fmt: on
