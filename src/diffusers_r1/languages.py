"""What words for an edit mean the same, as data: a pack for each language, read by `matching.py`.

A pack of a further language is one more entry in `PACKS`. Phrases are written as [`~matching.normalize`] leaves them: lower
case, without articles and punctuation. Verbs stand in the form that a dictionary has; English ones are recognised in all
their regular forms, those of other languages in the forms that stand here, or in all of them with `simplemma` installed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Language:
    """What is known of a language.

    Args:
        actions (`dict`): An action's name -> the phrases that mean it, separated by commas. A name of several words is a kind
            of those that it begins with: "resize up" is a "resize", and no "resize down".
        articles (`str`): Words that change no meaning, wherever they stand before another word.
        links (`str`): Words after which a noun is only described further: "man **in** the red coat".
        relations (`str`): Words that alone make another thing of it: "man **without** a hat". Those that are no links
            themselves count as adjectives.
        pronouns (`str`): Words that stand for a noun that comes later: "the left **one** of the dogs".
        fillers (`str`): Words that say nothing, where there are others.
        same (`str`): Words that count as another: "sofa=couch", separated by spaces.
        endings (`str`): Of inflected words, longest first: "ies=y" puts another ending in its place, "s=" none.
        uninflected (`str`): Words that end so and are not inflected, or mean something else without it.
        phrases (`tuple` of pairs): Regular expressions, and what counts in place of what they find, one after the other.
        participles (`str`): A regular expression of words that describe a noun before them: "arms **crossed**". None by default.
        head (`"last"` or `"first"`): Which of the words before the first link is the noun.
        hints (`str`): Words, beside the articles, by which a text is known to be of this language.
        folds (`dict`): Letters that change when a word is inflected, and what they are without that.
    """

    actions: dict[str, str]
    articles: str = ""
    links: str = ""
    relations: str = ""
    pronouns: str = ""
    fillers: str = ""
    same: str = ""
    endings: str = ""
    uninflected: str = ""
    phrases: tuple[tuple[str, str], ...] = ()
    participles: str = "$^"
    head: Literal["last", "first"] = "last"
    hints: str = ""
    folds: dict[str, str] = field(default_factory=dict)


PACKS: dict[str, Language] = {
    "en": Language(
        actions={
            "add": "add, insert, put, place, include, append, attach, give, introduce, draw in, put in, put on, place on, paste, "
            "overlay, superimpose, install, plant, fill in, compose, create, generate, bring in, apply, addition, insertion, "
            "hang, draw, set on, decorate, equip, dress, drop in",
            "remove": "remove, delete, erase, eliminate, take away, take out, take off, get rid of, clear, clear away, clean up, "
            "wipe, wipe out, wipe away, cut out, edit out, drop, lose, hide, strip, scrub, discard, exclude, subtract, "
            "leave out, rid, clone out, paint out, photoshop out, removal, deletion, erasure, elimination, retouch out, "
            "heal, dispose of, make disappear, make vanish, pull out, pluck, ditch, omit, airbrush out",
            "replace": "replace, swap, substitute, exchange, switch, swap out, switch out, change out, change into, turn into, change to, turn to, "
            "change for, trade, convert into, transform into, make into, morph into, swap in, exchange for, swap for, switch for, "
            "switch to, replacement, substitution, swap over, supersede",
            "recolor": "recolor, color, dye, tint, paint, repaint, colorize, stain, color in, hue shift, tint over, change color, alter color, "
            "modify color, adjust color, color change, change hue, change color to, color swap, recoloring, recolor to, color shift, "
            "change shade, color replacement, color adjustment, switch color, shift color, turn color, make color, change tint, "
            "shift hue, spray paint, repaint in, change color in, edit color",
            "restyle": "restyle, stylize, style, change style, apply style, style change, style transfer, transfer style, redraw, "
            "re render, rerender, alter style, convert style, artify, style conversion, make style, cartoonize, stylization, redo in style, "
            "apply filter, filter, change art style, repaint in style, turn into style",
            "background": "background, change background, replace background, background change, background replacement, "
            "swap background, new background, switch background, substitute background, change backdrop, replace backdrop, "
            "background swap, set background, backdrop, change scene, scene change, change setting, change scenery, replace scenery, "
            "alter background, modify background, edit background, background edit, change environment, environment change, "
            "backdrop change, backdrop replacement, swap backdrop, recompose background, transport, relight background",
            "lighting": "lighting, light, relight, change lighting, change light, adjust lighting, adjust light, enhance lighting, "
            "improve lighting, lighting change, lighting adjustment, alter lighting, fix lighting, modify lighting, set lighting, "
            "light change, edit lighting, relighting, change exposure, adjust exposure, adjust brightness, change brightness, "
            "correct exposure, fix exposure, correct lighting, expose, change time of day, illumination, lighting effect, enhance light, "
            "lighting enhancement, balance exposure, balance light, balance lighting",
            "lighting up": "brighten, lighten, illuminate, light up, brighten up, lighten up, make brighter, make lighter, increase brightness, "
            "raise brightness, boost brightness, raise exposure, increase exposure, lift exposure, lift shadow, brightening, bring up exposure, "
            "raise shadow, open shadow, open up shadow",
            "lighting down": "darken, dim, make darker, reduce brightness, lower brightness, decrease brightness, lower exposure, "
            "reduce exposure, decrease exposure, darkening, darken down, tone down light, dim down, turn down light",
            "material": "material, change material, change texture, texture, retexture, replace material, material change, "
            "texture change, make of, swap material, alter material, alter texture, modify material, modify texture, "
            "change fabric, replace texture, rematerialize, material replacement, resurface, reupholster, change surface, "
            "material swap, texture swap, change finish",
            "text": "text, write, change text, edit text, replace text, rewrite, text change, text edit, retype, reword, "
            "type, letter, modify text, alter text, change wording, text replacement, update text, change lettering, "
            "change word, change sign, relabel, spell, change caption, correct text, fix text, correct spelling, change number, "
            "text modification, text editing, fix spelling, fix typo, correct typo, edit wording, inscribe",
            "pose": "pose, change pose, repose, adjust pose, alter pose, pose change, change posture, modify pose, change gesture, "
            "change expression, change action, change stance, edit pose, set pose, posture change, adjust posture, make pose, "
            "change facial expression, expression change, alter expression, gesture",
            "move": "move, shift, relocate, reposition, displace, move over, change position, transfer, slide, drag, "
            "position change, change location, change place, movement, repositioning, relocation, put elsewhere, place elsewhere, "
            "adjust position, transpose, carry, rearrange, bring, alter position, translate, nudge, push, pull, scoot",
            "move up": "move up, raise, lift, shift up, elevate, hang higher, lift up, move higher",
            "move down": "move down, lower, shift down, move lower, hang lower",
            "move left": "move left, shift left, move to left, shift to left, slide left",
            "move right": "move right, shift right, move to right, shift to right, slide right",
            "move forward": "move forward, bring forward, move closer, bring closer, bring to front, move to front",
            "move backward": "move backward, move back, push back, send back, move away, move further away, send to back, move to back",
            "resize": "resize, scale, rescale, change size, adjust size, size change, alter size, modify size, resizing, "
            "scaling, change scale, edit size",
            "resize up": "enlarge, scale up, make bigger, make larger, increase size, size up, expand, grow, upsize, upscale, "
            "blow up, enlargement, magnify, zoom in, widen, extend, make taller, make longer, make wider, lengthen, make big, make large",
            "resize down": "shrink, scale down, make smaller, decrease size, reduce size, size down, downsize, downscale, "
            "shrink down, minimize, zoom out, narrow, slim, make thinner, slim down, shorten, make shorter, reduce in size, make small",
            "adjust": "adjust, tune, fine tune, tweak, modify, alter, change, edit, correct, fix, improve, enhance, retouch, touch up, "
            "refine, correction, enhancement, adjustment, modification, alteration, polish, color grade, color correct, grade, process, "
            "tone, regulate, rework, optimize, color correction, color grading, amend, revise, update, vary",
            "adjust up": "increase, boost, raise level, intensify, strengthen, turn up, amplify, make stronger, "
            "make more intense",
            "adjust straightness": "straighten, straighten up, level, straighten out, make straight",
            "adjust noise down": "denoise, reduce noise, remove noise, remove grain, noise reduction",
            "adjust smoothness up": "smooth, smooth out, even out, smooth over",
            "adjust white up": "whiten, bleach",
            "adjust contrast": "contrast, change contrast, adjust contrast",
            "adjust contrast up": "increase contrast, boost contrast, raise contrast, add contrast",
            "adjust contrast down": "reduce contrast, lower contrast, decrease contrast",
            "adjust saturation": "saturation, change saturation, adjust saturation",
            "adjust saturation up": "saturate, increase saturation, boost saturation, make more vivid, raise saturation",
            "adjust saturation down": "desaturate, lower saturation, reduce saturation, decrease saturation",
            "adjust sharpness": "adjust sharpness, change sharpness",
            "adjust sharpness up": "sharpen, make sharper, increase sharpness, deblur, unblur, sharpening",
            "adjust sharpness down": "blur, blur out, make blurry, defocus, blurring",
            "adjust down": "reduce, decrease, lessen, soften, weaken, tone down, turn down, mute, fade, make softer, make weaker",
            "crop": "crop, trim, cut, recrop, crop out, crop in, crop to, crop down, reframe, cut off, cut down, cropping, clip, "
            "cut to, change framing, trim off, trim away, reframing, crop off, crop away, change aspect ratio, tighten frame, crop tighter",
            "rotate": "rotate, turn, spin, turn around, rotation, tilt, twist",
            "flip": "flip, mirror, reflect, invert, reverse, flip over, mirror image",
        },
        articles="a an the",
        links="in on at of with wearing from for by that which who whose is are to into onto inside under below beneath "
        "underneath over above behind between beside near against across around along without not except excluding holding standing sitting "
        "carrying next front as like where when than through toward towards made within among beyond outside off has have having "
        "while being covered filled located seen lying hanging riding driving playing looking facing walking running using",
        relations="except excluding under over behind between beside near against across around without not no less front outside off above inside",
        pronouns="one ones pair group bunch some couple",
        fillers="in on at of with wearing from for by that which who whose is are to into onto some any all this these those "
        "its his her their my your our it there here as like one ones color shade tone hue style photo image picture scene "
        "material texture fabric side edge ratio aspect "
        "look colour coloured effect version colored made have having being be located seen scene current existing original entire whole overall "
        "please more also and",
        same="guy=man gentleman=man dude=man male=man lady=woman girlfriend=woman female=woman kid=child "
        "children=child men=man women=woman people=person feet=foot teeth=tooth mice=mouse geese=goose "
        "leaves=leaf knives=knife wives=wife shelves=shelf scarves=scarf loaves=loaf wolves=wolf halves=half calves=calf lives=life thieves=thief "
        "picture=photo image=photo photograph=photo pic=photo shot=photo sofa=couch bike=bicycle tv=television automobile=car "
        "grey=gray backdrop=background eyeglasses=glasses spectacles=glasses trousers=pants sneaker=shoe trainer=shoe "
        "phone=telephone smartphone=telephone cellphone=telephone puppy=dog doggy=dog doggo=dog kitty=cat kitten=cat "
        "beneath=under underneath=under below=under next=beside alongside=beside nearby=near close=near "
        "atop=on upon=on amid=among amongst=among removed=nothing gone=nothing none=nothing absent=nothing "
        "deleted=nothing erased=nothing empty=nothing disappeared=nothing vanished=nothing invisible=nothing "
        "brighter=bright darker=dark lighter=bright larger=large bigger=large big=large smaller=small little=small tiny=small both=2 "
        "huge=large taller=tall longer=long shorter=short wider=wide thinner=thin warmer=warm cooler=cool colder=cold "
        "sharper=sharp softer=soft stronger=strong higher=high cleaner=clean greener=green bluer=blue redder=red "
        "wooden=wood golden=gold woolen=wool metallic=metal "
        "one=1 two=2 three=3 four=4 five=5 six=6 seven=7 eight=8 nine=9 ten=10 first=1st second=2nd third=3rd fourth=4th fifth=5th "
        "colour=color coloured=color colored=color tee=shirt tshirt=shirt blonde=blond mum=mother mom=mother mommy=mother mummy=mother dad=father daddy=father "
        "grandma=grandmother granny=grandmother nan=grandmother grandpa=grandfather granddad=grandfather sis=sister bro=brother "
        "telly=television tvs=television necktie=tie centre=center middle=center tyre=tire jewellery=jewelry theatre=theater "
        "percent=% degree=° twice=2x double=2x triple=3x half=0.5x no=without blurry=blur blurred=blur shut=closed shutting=closed "
        "closing=closed opened=open smile=smiling smiled=smiling laugh=laughing laughed=laughing grayscale=monochrome greyscale=monochrome "
        "plane=airplane aeroplane=airplane mustache=moustache lit=light rug=carpet pavement=sidewalk "
        "leftmost=left rightmost=right lefthand=left righthand=right top=upper bottom=lower purse=handbag "
        "lips=lip watercolour=watercolor aquarelle=watercolor sketch=drawing sundown=sunset "
        "shoes=shoe toes=toe canoes=canoe movies=movie cookies=cookie ties=tie pies=pie selfies=selfie buses=bus lense=lens stone=rock road=street fall=autumn nighttime=night daytime=day",
        phrases=(
            (r"\b(switched|turned) (on|off)\b", r"\2"),
            (r"\b(black and white|b and w|bw)\b", "monochrome"),
            (r"\bnavy( blue)?\b", "dark blue"),
            (r"\b(burgundy|maroon|wine red|wine colored)\b", "dark red"),
            (r"\b(trash|garbage|rubbish|waste) (can|bin)\b|\bdustbin\b|\bwastebasket\b", "bin"),
            (
                r"\b(hot) (dog)\b|\b(teddy|gummy) (bear)\b|\b(sea) (lion|horse)\b|\b(guinea) (pig)\b",
                r"\1\2\3\4\5\6\7\8",
            ),
            (r"\b(golden hour|morning|evening|afternoon|sunset|sunrise|studio) light(ing)?\b", r"\1"),
            (r"\ball (but|except)\b|\beverything (but|apart from)\b", "everything except"),
            (r"\b(\w{3,})less\b", r"without \1"),
            (r"\ba little (bit )?(?=\w+er\b)|\bslightly\b|\ba bit\b", "bit "),
            (r"(\d) (?:to|through|until) (\d)", r"\1-\2"),
            (r"\bone stop\b", "1 stop"),
            (r"(\d[\d./]*) stops? (brighter|lighter|up|more)\b", r"+ \1 stop"),
            (r"(\d[\d./]*) stops? (darker|dimmer|down|less)\b", r"-\1 stop"),
            *(
                (rf"\bnumber ({word}|{number})\b", ordinal)
                for word, number, ordinal in (
                    ("one", 1, "1st"),
                    ("two", 2, "2nd"),
                    ("three", 3, "3rd"),
                    ("four", 4, "4th"),
                    ("five", 5, "5th"),
                )
            ),
        ),
        participles=r"\w{3}ed$",
        endings="sses=ss shes=sh ches=ch xes=x zzes=zz ies=y oes=o ss=ss us=us is=is s=",
        uninflected="glasses canvas jeans pants shorts clothes scissors binoculars headphones lens bus gas this series species goggles "
        "christmas paris news chess lass plus "
        "grass glass dress always less across",
        hints="the and with without remove",
    ),
    "de": Language(
        actions={
            "add": "hinzufügen, füge hinzu, hinzu, ergänzen, einfügen, ergänze, füge ein, platzieren, setzen, hinzufügung, setze, platziere, "
            "dazugeben, anbringen, aufsetzen, hinzutun, hinzugefügt, zufügen",
            "remove": "entfernen, entferne, löschen, lösche, wegnehmen, herausnehmen, beseitigen, weg, raus, wegmachen, tilgen, "
            "entfernung, nimm weg, eliminieren, herausschneiden, ausradieren, radieren, wegretuschieren, entfernt, verschwinden lassen, "
            "loswerden, streichen, mach weg",
            "replace": "ersetzen, ersetze, austauschen, tausche, tauschen, tausche aus, wechseln, auswechseln, ersatz, umtauschen, "
            "verwandeln, verwandle, ersetzt, ersetze durch, ersetzen durch, ändern in",
            "recolor": "umfärben, färben, färbe, färbe um, einfärben, streichen in, farbe ändern, farbe wechseln, anmalen, ändere farbe, "
            "bemalen, farbänderung, lackieren, umlackieren, färbe ein, tönen, male an, farbe anpassen, neu einfärben, farbwechsel",
            "restyle": "stil ändern, stilisieren, ändere stil, umgestalten, stil, stil wechseln, stiländerung, stil anwenden, stil übertragen",
            "background": "hintergrund, hintergrund ändern, hintergrund ersetzen, ändere hintergrund, ersetze hintergrund, "
            "hintergrund austauschen, hintergrund wechseln, tausche hintergrund aus, hintergrundwechsel, tausche hintergrund",
            "lighting": "beleuchtung, licht, beleuchtung ändern, licht ändern, ändere beleuchtung, ändere licht, belichtung, "
            "beleuchtung anpassen, licht anpassen, belichtung anpassen, beleuchtung verbessern, beleuchten, belichtung ändern",
            "lighting up": "aufhellen, erhellen, helle auf, heller machen, mach heller, hell machen, helligkeit erhöhen, mache heller",
            "lighting down": "abdunkeln, verdunkeln, dunkle ab, dunkler machen, mach dunkler, helligkeit verringern, mache dunkler",
            "material": "material, material ändern, ändere material, textur, textur ändern, ändere textur, material ersetzen, material wechseln",
            "text": "text, text ändern, ändere text, schreiben, schreibe, beschriften, text ersetzen, beschriftung, schreib, beschriftung ändern",
            "pose": "pose, pose ändern, ändere pose, haltung ändern, haltung, ändere haltung, körperhaltung ändern",
            "move": "verschieben, verschiebe, bewegen, bewege, versetzen, umstellen, rücken, position ändern, verlegen, umsetzen, "
            "schieben, verschiebung, schiebe",
            "resize": "grösse ändern, skalieren, ändere grösse, grösse, grösse anpassen, grössenänderung",
            "resize up": "vergrössern, vergrössere, grösser machen, mach grösser, hochskalieren, mache grösser",
            "resize down": "verkleinern, verkleinere, kleiner machen, mach kleiner, herunterskalieren, schrumpfen, mache kleiner",
            "adjust": "anpassen, passe an, ändern, ändere, korrigieren, verbessern, bearbeiten, justieren, retuschieren, anpassung, "
            "verändern, verbessere, korrigiere, optimieren",
            "adjust up": "verstärken, erhöhen, steigern, erhöhe, verstärke",
            "adjust down": "abschwächen, verringern, reduzieren, senken, reduziere",
            "adjust sharpness up": "schärfen, schärfe",
            "adjust sharpness down": "weichzeichnen, verwischen",
            "crop": "zuschneiden, beschneiden, zuschnitt, schneide zu, abschneiden, ausschnitt ändern",
            "rotate": "drehen, drehe, rotieren, rotiere",
            "flip": "spiegeln, spiegele",
        },
        articles="der die das den dem des ein eine einen einem einer eines",
        phrases=((r"\bmarineblau", "dunkelblau"), (r"\bschwarz weiss\b", "schwarzweiss")),
        links="in im am an auf mit von vom aus bei zu zum zur unter über hinter vor zwischen neben ohne nicht das die der des dem den ins um gegen "
        "für wie",
        relations="unter über hinter vor zwischen neben ohne nicht kein keine keinen um gegen",
        fillers="in im am an auf mit von vom aus bei zu zum zur farbe stil ist sind ins und sehr bild foto",
        same="orangefarben=orange entfernt=nichts weg=nichts zwei=2 drei=3 vier=4 "
        "automobil=auto wagen=auto foto=bild bilder=bild kerl=mann typ=mann",
        endings="nn=nn innen=in ern=er en= er= es= em= e= n= s=",
        uninflected="haus maus glas gras eis bus wasser himmel links rechts nichts",
        hints="und nicht ohne rot rote roten blau dunkelblau hellblau marineblau dunkelrot dunkelgrün grün gelb schwarz weiss mann frau hund katze jacke himmel hintergrund mit von im auf "
        "ist kleid hut baum haus links rechts grosser kleine roter rotes blaue blaues grüne",
        folds={"ä": "a", "ö": "o", "ü": "u"},
    ),
    "es": Language(
        actions={
            "add": "añadir, añade, agregar, agrega, poner, pon, colocar, insertar, coloca, inserta, incluir, sumar, adición, añadido, añadiendo, "
            "agregado, incorporar, ponle",
            "remove": "quitar, quita, eliminar, elimina, borrar, borra, suprimir, retirar, sacar, saca, eliminación, retira, remover, "
            "quitando, eliminando, deshacerse de, hacer desaparecer, remueve",
            "replace": "reemplazar, reemplaza, sustituir, sustituye, cambiar por, cambia por, intercambiar, remplazar, sustitución, "
            "reemplazo, convertir en, transformar en, convierte en, reemplazar por, sustituir por",
            "recolor": "recolorear, colorear, colorea, teñir, tiñe, pintar, pinta, cambiar color, cambia color, cambiar color de, recolorea, cambio de color, "
            "cambia color de, repintar, modificar color, cambiar de color",
            "restyle": "estilizar, cambiar estilo, cambia estilo, estilo, aplicar estilo, transferir estilo, cambio de estilo, cambiar de estilo",
            "background": "fondo, cambiar fondo, cambia fondo, reemplazar fondo, sustituir fondo, reemplaza fondo, cambio de fondo, "
            "cambiar de fondo, sustituye fondo",
            "lighting": "iluminación, luz, cambiar iluminación, cambia iluminación, ajustar iluminación, mejorar iluminación, ajustar luz, cambiar luz, "
            "mejorar luz, exposición, ajustar exposición",
            "lighting up": "aclarar, iluminar, aclara, ilumina, hacer más claro, aumentar brillo, hacer más brillante, subir brillo",
            "lighting down": "oscurecer, oscurece, hacer más oscuro, atenuar, reducir brillo, bajar brillo",
            "material": "material, cambiar material, cambia material, textura, cambiar textura, cambio de material",
            "text": "texto, cambiar texto, cambia texto, escribir, escribe, editar texto, reemplazar texto, rotular",
            "pose": "pose, postura, cambiar pose, cambiar postura, cambia pose, cambia postura, posar",
            "move": "mover, mueve, desplazar, desplaza, trasladar, reubicar, cambiar posición, cambiar de lugar, cambiar de sitio",
            "resize": "redimensionar, cambiar tamaño, cambia tamaño, escalar, tamaño, ajustar tamaño, cambiar tamaño de",
            "resize up": "agrandar, ampliar, agranda, amplía, hacer más grande, aumentar tamaño, aumentar",
            "resize down": "reducir, encoger, achicar, hacer más pequeño, reduce, reducir tamaño, empequeñecer",
            "adjust": "ajustar, ajusta, modificar, cambiar, corregir, mejorar, editar, retocar, modifica, cambia, ajuste, arreglar, alterar",
            "adjust up": "intensificar, reforzar",
            "adjust down": "suavizar",
            "adjust sharpness up": "enfocar, nitidez",
            "adjust sharpness down": "desenfocar, difuminar",
            "crop": "recortar, recorta, encuadrar, recorte, reencuadrar, cortar",
            "rotate": "girar, rotar, gira",
            "flip": "voltear, reflejar, voltea",
        },
        articles="el la los las un una unos unas lo",
        phrases=((r"\bazul marino\b", "azul oscuro"),),
        links="de del en con sin sobre bajo detrás delante entre junto al a que para por desde hacia encima debajo",
        relations="sin sobre bajo detrás delante entre junto no encima debajo",
        fillers="de del en con al a que es color estilo y muy por para foto imagen más",
        same="eliminado=nada foto=imagen coche=auto carro=auto automóvil=auto dos=2 tres=3 cuatro=4 luces=luz peces=pez",
        endings="iones=ion es= os= as= s= o= a= e=",
        uninflected="",
        head="first",
        hints="el la los las un una de del con sin rojo roja azul verde negro negra blanco blanca amarillo hombre mujer perro gato "
        "cielo fondo coche camisa chaqueta sombrero árbol casa izquierda derecha grande pequeño y en",
        folds={"á": "a", "é": "e", "í": "i", "ó": "o", "ú": "u"},
    ),
    "fr": Language(
        actions={
            "add": "ajouter, ajoute, insérer, mettre, placer, ajoutez, mets, place, ajout, inclure, ajouté, insère, poser, rajouter, incorporer",
            "remove": "supprimer, supprime, enlever, enlève, retirer, retire, effacer, efface, ôter, éliminer, supprimez, enlevez, "
            "retirez, suppression, faire disparaître, se débarrasser de, gommer, effacez",
            "replace": "remplacer, remplace, substituer, échanger, changer en, remplacez, remplacement, changer pour, transformer en, "
            "remplacer par, échange, changer par",
            "recolor": "recolorer, colorer, colorier, teindre, peindre, changer couleur, change couleur, changer couleur de, repeindre, teinter, "
            "coloriser, changement de couleur, changer de couleur, modifier couleur, peins, recolore, recoloriser",
            "restyle": "styliser, changer style, change style, style, appliquer style, transférer style, changer de style, changement de style",
            "background": "arrière plan, fond, changer arrière plan, changer fond, remplacer fond, change fond, remplace fond, "
            "remplacer arrière plan, changement de fond, changer de fond, change arrière plan",
            "lighting": "éclairage, lumière, changer éclairage, changer lumière, ajuster éclairage, améliorer éclairage, ajuster lumière, "
            "exposition, modifier éclairage",
            "lighting up": "éclaircir, illuminer, rendre plus clair, éclairer, éclaircis, augmenter luminosité, rendre plus lumineux",
            "lighting down": "assombrir, obscurcir, rendre plus sombre, assombris, réduire luminosité, diminuer luminosité",
            "material": "matériau, matière, changer matériau, changer matière, texture, changer texture, changer de matière, changer de matériau",
            "text": "texte, changer texte, écrire, écris, modifier texte, remplacer texte, inscrire",
            "pose": "pose, posture, changer pose, changer posture, changer de pose, modifier pose, poser autrement",
            "move": "déplacer, déplace, bouger, décaler, changer position, déplacez, déplacement, changer de place, bouge",
            "resize": "redimensionner, changer taille, taille, ajuster taille, mettre à échelle, modifier taille",
            "resize up": "agrandir, agrandis, rendre plus grand, élargir, augmenter taille",
            "resize down": "réduire, rétrécir, rendre plus petit, réduis, rapetisser, réduire taille, diminuer taille",
            "adjust": "ajuster, modifier, corriger, améliorer, changer, régler, éditer, retoucher, ajuste, modifie, change, ajustement",
            "adjust up": "augmenter, renforcer, intensifier, accentuer",
            "adjust down": "adoucir, atténuer, diminuer",
            "adjust sharpness up": "rendre plus net, affiner",
            "adjust sharpness down": "flouter, flou",
            "crop": "recadrer, rogner, recadre, recadrage, couper",
            "rotate": "tourner, pivoter, faire pivoter, tourne",
            "flip": "retourner, inverser, refléter",
        },
        articles="le la les un une des du",
        phrases=((r"\bbleu marine\b", "bleu foncé"),),
        links="de du des dans sur sous avec sans derrière devant entre à au aux qui que en près pour par vers chez",
        relations="sous sans derrière devant entre près pas",
        fillers="de du des dans sur avec à au aux qui que en est couleur style et très par pour photo image plus",
        same="supprimé=rien enlevé=rien photo=image auto=voiture yeux=oeil œil=oeil deux=2 trois=3 quatre=4 chevaux=cheval "
        "blanche=blanc blanches=blanc",
        endings="eaux=eau aux=al es= s= x= e=",
        uninflected="bras bus gris bois",
        head="first",
        hints="le la les un une des du et avec sans rouge bleu bleue vert verte noir noire blanc blanche jaune homme femme chien chat "
        "ciel fond voiture chemise veste manteau chapeau arbre maison gauche droite grand petite dans sur",
        folds={"é": "e", "è": "e", "ê": "e", "à": "a", "â": "a", "î": "i", "ô": "o", "û": "u", "ç": "c"},
    ),
    "zh": Language(
        actions={
            "add": "添加, 加, 加上, 增加, 插入, 放, 放上, 加入, 放置, 新增, 添, 放入, 添上",
            "remove": "删除, 去掉, 移除, 去除, 擦除, 拿掉, 消除, 清除, 抹掉, 删掉, 擦掉, 去, 除去, 移走",
            "replace": "替换, 换成, 替换成, 更换, 换, 替换为, 改成, 变成, 换为, 替代, 换掉, 更换为",
            "recolor": "改变颜色, 换颜色, 变色, 染色, 上色, 涂色, 重新上色, 更改颜色, 改颜色, 涂成, 染成, 颜色更改, 颜色变化, 改色, 换色, 调色, 着色, 修改颜色",
            "restyle": "风格化, 改变风格, 换风格, 风格转换, 更改风格, 风格, 风格迁移, 风格变换",
            "background": "背景, 换背景, 更换背景, 改变背景, 替换背景, 背景替换, 更改背景, 背景更换, 修改背景",
            "lighting": "光线, 光照, 改变光线, 调整光线, 灯光, 改变光照, 打光, 调整光照, 改善光线, 曝光, 调整曝光",
            "lighting up": "提亮, 变亮, 调亮, 加亮, 增亮",
            "lighting down": "变暗, 调暗, 压暗",
            "material": "材质, 改变材质, 更换材质, 质地, 换材质, 纹理, 更改材质",
            "text": "文字, 改文字, 修改文字, 更改文字, 写, 文本, 修改文本, 替换文字, 写上, 更换文字",
            "pose": "姿势, 改变姿势, 姿态, 改变姿态, 动作, 改变动作, 调整姿势",
            "move": "移动, 移, 挪, 挪动, 移到, 移动到, 改变位置, 搬, 移位",
            "resize": "调整大小, 改变大小, 缩放, 大小, 改变尺寸, 调整尺寸",
            "resize up": "放大, 变大, 扩大, 加大",
            "resize down": "缩小, 变小",
            "adjust": "调整, 修改, 改变, 更改, 编辑, 改善, 调节, 改, 增强, 优化, 修图",
            "adjust up": "加强, 提高",
            "adjust down": "减弱, 降低, 柔化",
            "adjust sharpness up": "锐化",
            "adjust sharpness down": "模糊, 虚化",
            "crop": "裁剪, 剪裁, 裁切, 裁, 剪切",
            "rotate": "旋转, 转, 转动",
            "flip": "翻转, 镜像, 水平翻转",
        },
        fillers="的 了 个 只 那 这 条 件 张 把 一 位 在 里 色",
        relations="不 没 无 上 下 后 前 旁",
        same="狗=犬",
    ),
}
