// Signs a file the way a signing configuration says, with npm's @sigstore/sign. The token comes in SIGSTORE_ID_TOKEN.
// Usage: node sign.js SIGNING_CONFIG FILE BUNDLE
import { readFileSync, writeFileSync } from "node:fs";
import { bundleToJSON } from "@sigstore/bundle";
import { SigningConfig } from "@sigstore/protobuf-specs";
import { bundleBuilderFromSigningConfig } from "@sigstore/sign";

const [configuration, file, bundle] = process.argv.slice(2);
const builder = bundleBuilderFromSigningConfig({
  signingConfig: SigningConfig.fromJSON(JSON.parse(readFileSync(configuration, "utf8"))),
  identityProvider: { getToken: async () => process.env.SIGSTORE_ID_TOKEN },
  bundleType: "messageSignature",
});
writeFileSync(bundle, JSON.stringify(bundleToJSON(await builder.create({ data: readFileSync(file) }))));
