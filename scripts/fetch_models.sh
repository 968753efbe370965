#!/usr/bin/env bash
# Raw material for `pics build-shards rendered`, from packages of Debian (280 MB): 3D models, HDRI panoramas, and
# photographs for grounds and walls, all CC0, CC BY or CC BY-SA (docs/credits.md names the makers).
#   scripts/fetch_models.sh [data/raw/rendered]
# Needs apt, and no rights: packages are downloaded and unpacked, not installed.
set -euo pipefail

out=${1:-data/raw/rendered}
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "error: no apt here; docs/data.md says where models, HDRIs and photographs come from" >&2
    exit 2
fi
mkdir -p "$out"/models "$out"/hdris "$out"/grounds
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download sweethome3d-furniture blender-data lomiri-wallpapers-16.04
for package in *.deb; do dpkg-deb -x "$package" .; done
cp usr/share/sweethome3d/furniture/*.sh3f "$out"/models/
cp usr/share/blender/datafiles/studiolights/world/*.exr "$out"/hdris/

# Photographs that fill their picture: from the textures of those models, and of Ubuntu Touch's wallpapers.
texture() {
    python3 - "usr/share/sweethome3d/furniture/$1" "$2" "$out/grounds" <<'PYTHON'
import pathlib, sys, zipfile
archive, member, out = sys.argv[1:]
parts = pathlib.PurePosixPath(member).parts
pathlib.Path(out, "_".join(parts[1:])).write_bytes(zipfile.ZipFile(archive).read(member))
PYTHON
}
for member in upperCabinet/american_oak.jpg lowerCabinet/marble_14.jpg table/Wood_013_COLOR.jpg \
    couch2/Fabric_011_COLOR.jpg; do
    texture BlendSwap-CC-0.sh3f "blendswap-cc-0/$member"
done
for member in wardrobe/Wood1.jpg sofa3/dark-brown_leather.jpg fountain/white-marble.jpg cornerSofa/Fabric_04.jpg; do
    texture BlendSwap-CC-BY.sh3f "blendswap-cc-by/$member"
done
for member in convertible-sofa-BZ-closed/texturefabric.jpg stoneGrillDevice/textureStone.jpg \
    dog-house/dog-house-texture.jpg table-on-trestles/texture-bois.jpg wooden_office_pear_table/pear_wood.jpg \
    convertible-sofa-BZ-opened/sheettexture.jpg rattanTable/textureRattan.jpg round-table/oaktexture.jpg \
    bowlWithSalad/textureWoodBowl.jpg garden-hut/gardenHutTexture.jpg puerta/tilewood.jpg \
    hedgeTextured/hedge-displacement-texture.jpg captains-bed/woodtexture.jpg \
    bathroom_vanity/marble_public_dom_clair.jpg coffee-table2/little_stones.jpg swimming-pool/swimming-pool-tiles.jpg \
    child_swing/pine-wood.jpg folded_clothes/blue-fabric.jpg hammock/fabricTexture.jpg futon/wallpaper-chiyogami.jpg \
    living_lamp/tela_lamp_tile.jpg living_lamp/little_wood.jpg dining_room/butcherblock_tileable.jpg \
    living_room_table/beige_tileable.jpg; do
    texture Scopia.sh3f "scopia/$member"
done
for name in Picture_0B_by_freespace Dragonfly_by_Bolly Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi \
    analogpattern_by_Peter_Nerlich friends_by_Aitzol_Berasategi life_by_Aitzol_Berasategi \
    picosdeeuropa_by_Aitzol_Berasategi seeding_by_Clements_Engelhardt sunset_by_Aitzol_Berasategi; do
    cp "usr/share/backgrounds/$name.jpg" "$out"/grounds/
done
echo "$out: $(ls "$out"/models | wc -l) libraries of models, $(ls "$out"/hdris | wc -l) HDRIs, $(ls "$out"/grounds | wc -l) photographs"
