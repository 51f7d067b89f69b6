// A server that is not written in Python, for tests: node-opcua. Arguments: where it is installed, port, a directory
// for its certificates. Says "listening"; takes lines like {"name": "Temperature", "value": 5}, and answers "set".
"use strict";
const path = require("path");
const [home, port, folder] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const from = (name) => require(require.resolve(name, { paths: [home] }));
const { OPCUAServer } = from("node-opcua-server");
const { OPCUACertificateManager } = from("node-opcua-certificate-manager");
const { DataType, VariantArrayType } = from("node-opcua-variant");
const { MessageSecurityMode, SecurityPolicy } = from("node-opcua-secure-channel");
const { nodesets } = from("node-opcua-nodesets");

async function main() {
    const manager = new OPCUACertificateManager({ rootFolder: folder, automaticallyAcceptUnknownCertificate: true });
    const server = new OPCUAServer({
        port,
        hostname: "127.0.0.1",
        resourcePath: "/press",
        nodeset_filename: [nodesets.standard, path.join(__dirname, "plant.xml")],
        serverCertificateManager: manager,
        userCertificateManager: manager,
        securityPolicies: [
            SecurityPolicy.None,
            SecurityPolicy.Basic256Sha256,
            SecurityPolicy.Aes128_Sha256_RsaOaep,
            SecurityPolicy.Aes256_Sha256_RsaPss,
        ],
        securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
        userManager: { isValidUser: (user, password) => user === "operator" && password === "se cret" },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    const plant = space.registerNamespace("urn:plant:press");
    const robotTypes = space.getNamespaceIndex("urn:plant:robot");
    const variables = {};
    const add = (name, dataType, value, more) => {
        variables[name] = plant.addVariable({
            organizedBy: space.rootFolder.objects,
            browseName: name,
            nodeId: `s=${name}`,
            dataType,
            minimumSamplingInterval: 10,
            value,
            ...more,
        });
    };
    const make = (type, value) => space.constructExtensionObject(space.findDataType(type, robotTypes), value);
    add("Temperature", "Double", { dataType: DataType.Double, value: 71.5 });
    add("Level", "Int16", { dataType: DataType.Int16, value: -7 });
    add("Total", "UInt64", { dataType: DataType.UInt64, arrayType: VariantArrayType.Scalar, value: [1, 2] });
    add("Running", "Boolean", { dataType: DataType.Boolean, value: true });
    add("Recipe", "String", { dataType: DataType.String, value: "Nougat" });
    add("Label", "LocalizedText", { dataType: DataType.LocalizedText, value: { text: "Presse", locale: "de" } });
    add("Since", "DateTime", { dataType: DataType.DateTime, value: new Date("2026-03-01T12:00:00.250Z") });
    add("Code", "ByteString", { dataType: DataType.ByteString, value: Buffer.from([1, 0xab]) });
    add("Curve", "Double", {
        dataType: DataType.Double, arrayType: VariantArrayType.Array, value: new Float64Array([1, 2]),
    }, { valueRank: 1 });
    add("State", space.findDataType("State", robotTypes), { dataType: DataType.Int32, value: 1 });
    add("Robot", space.findDataType("Robot", robotTypes), {
        dataType: DataType.ExtensionObject,
        value: make("Robot", {
            name: "Anna",
            axes: [make("Axis", { speed: 1.5, state: 1, travel: 9 }), make("Axis", { speed: 2.5, state: 0, travel: 8 })],
            limits: [-1, 7],
        }),
    });
    plant.addAnalogDataItem({
        organizedBy: space.rootFolder.objects,
        browseName: "Pressure",
        nodeId: "s=Pressure",
        dataType: "Double",
        engineeringUnitsRange: { low: 0, high: 200 },
        value: { dataType: DataType.Double, value: 50 },
        minimumSamplingInterval: 10,
    });
    variables.Pressure = space.findNode(`ns=${plant.index};s=Pressure`);
    await server.start();
    console.log("listening");
    require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
        const { name, value } = JSON.parse(line);
        variables[name].setValueFromSource({ dataType: DataType.Double, value });
        console.log("set");
    }).on("close", async () => {
        await server.shutdown(0);
        process.exit(0);
    });
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
