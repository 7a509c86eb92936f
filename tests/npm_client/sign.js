// Signs a file the way a signing configuration says, with npm's @sigstore/sign. The token comes in SIGSTORE_ID_TOKEN.
// Usage: node sign.js SIGNING_CONFIG FILE BUNDLE [STATEMENT], where a statement is signed in place of the file
import { readFileSync, writeFileSync } from "node:fs";
import { bundleToJSON } from "@sigstore/bundle";
import { SigningConfig } from "@sigstore/protobuf-specs";
import { bundleBuilderFromSigningConfig } from "@sigstore/sign";

const [configuration, file, bundle, statement] = process.argv.slice(2);
const builder = bundleBuilderFromSigningConfig({
  signingConfig: SigningConfig.fromJSON(JSON.parse(readFileSync(configuration, "utf8"))),
  identityProvider: { getToken: async () => process.env.SIGSTORE_ID_TOKEN },
  bundleType: statement ? "dsseEnvelope" : "messageSignature",
});
const type = statement && "application/vnd.in-toto+json";
writeFileSync(bundle, JSON.stringify(bundleToJSON(await builder.create({ data: readFileSync(statement ?? file), type }))));
