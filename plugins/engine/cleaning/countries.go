package cleaning

import "strings"

// isoCountries are the 249 countries of ISO 3166-1, each as its codes of two letters,
// three letters and three digits. XK, which ISO reserves for users, is Kosovo's code
// in CLDR and in the European Union.
const isoCountries = `
ADAND020 AEARE784 AFAFG004 AGATG028 AIAIA660 ALALB008 AMARM051 AOAGO024 AQATA010 ARARG032 ASASM016 ATAUT040
AUAUS036 AWABW533 AXALA248 AZAZE031 BABIH070 BBBRB052 BDBGD050 BEBEL056 BFBFA854 BGBGR100 BHBHR048 BIBDI108
BJBEN204 BLBLM652 BMBMU060 BNBRN096 BOBOL068 BQBES535 BRBRA076 BSBHS044 BTBTN064 BVBVT074 BWBWA072 BYBLR112
BZBLZ084 CACAN124 CCCCK166 CDCOD180 CFCAF140 CGCOG178 CHCHE756 CICIV384 CKCOK184 CLCHL152 CMCMR120 CNCHN156
COCOL170 CRCRI188 CUCUB192 CVCPV132 CWCUW531 CXCXR162 CYCYP196 CZCZE203 DEDEU276 DJDJI262 DKDNK208 DMDMA212
DODOM214 DZDZA012 ECECU218 EEEST233 EGEGY818 EHESH732 ERERI232 ESESP724 ETETH231 FIFIN246 FJFJI242 FKFLK238
FMFSM583 FOFRO234 FRFRA250 GAGAB266 GBGBR826 GDGRD308 GEGEO268 GFGUF254 GGGGY831 GHGHA288 GIGIB292 GLGRL304
GMGMB270 GNGIN324 GPGLP312 GQGNQ226 GRGRC300 GSSGS239 GTGTM320 GUGUM316 GWGNB624 GYGUY328 HKHKG344 HMHMD334
HNHND340 HRHRV191 HTHTI332 HUHUN348 IDIDN360 IEIRL372 ILISR376 IMIMN833 ININD356 IOIOT086 IQIRQ368 IRIRN364
ISISL352 ITITA380 JEJEY832 JMJAM388 JOJOR400 JPJPN392 KEKEN404 KGKGZ417 KHKHM116 KIKIR296 KMCOM174 KNKNA659
KPPRK408 KRKOR410 KWKWT414 KYCYM136 KZKAZ398 LALAO418 LBLBN422 LCLCA662 LILIE438 LKLKA144 LRLBR430 LSLSO426
LTLTU440 LULUX442 LVLVA428 LYLBY434 MAMAR504 MCMCO492 MDMDA498 MEMNE499 MFMAF663 MGMDG450 MHMHL584 MKMKD807
MLMLI466 MMMMR104 MNMNG496 MOMAC446 MPMNP580 MQMTQ474 MRMRT478 MSMSR500 MTMLT470 MUMUS480 MVMDV462 MWMWI454
MXMEX484 MYMYS458 MZMOZ508 NANAM516 NCNCL540 NENER562 NFNFK574 NGNGA566 NINIC558 NLNLD528 NONOR578 NPNPL524
NRNRU520 NUNIU570 NZNZL554 OMOMN512 PAPAN591 PEPER604 PFPYF258 PGPNG598 PHPHL608 PKPAK586 PLPOL616 PMSPM666
PNPCN612 PRPRI630 PSPSE275 PTPRT620 PWPLW585 PYPRY600 QAQAT634 REREU638 ROROU642 RSSRB688 RURUS643 RWRWA646
SASAU682 SBSLB090 SCSYC690 SDSDN729 SESWE752 SGSGP702 SHSHN654 SISVN705 SJSJM744 SKSVK703 SLSLE694 SMSMR674
SNSEN686 SOSOM706 SRSUR740 SSSSD728 STSTP678 SVSLV222 SXSXM534 SYSYR760 SZSWZ748 TCTCA796 TDTCD148 TFATF260
TGTGO768 THTHA764 TJTJK762 TKTKL772 TLTLS626 TMTKM795 TNTUN788 TOTON776 TRTUR792 TTTTO780 TVTUV798 TWTWN158
TZTZA834 UAUKR804 UGUGA800 UMUMI581 USUSA840 UYURY858 UZUZB860 VAVAT336 VCVCT670 VEVEN862 VGVGB092 VIVIR850
VNVNM704 VUVUT548 WFWLF876 WSWSM882 YEYEM887 YTMYT175 ZAZAF710 ZMZMB894 ZWZWE716
XKXKX983`

// countryCodes maps each of the three codes of a country to the code of two letters.
var countryCodes = func() map[string]string {
	codes := map[string]string{}
	for country := range strings.FieldsSeq(isoCountries) {
		code := country[:2]
		codes[code], codes[country[2:5]], codes[country[5:]] = code, code, code
	}
	return codes
}()

// otherCountries are names and abbreviations in use that the Unicode data lacks:
// official names, former names, and parts of the United Kingdom. The keys are folded
// by countryKey.
var otherCountries = map[string]string{
	"uk": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "northern ireland": "GB", "great britain": "GB", "britain": "GB",
	"grossbritannien": "GB", "schottland": "GB", "grande bretagne": "GB", "angleterre": "GB", "gran bretana": "GB", "inglaterra": "GB",
	"usa": "US", "u s a": "US", "u s": "US", "united states of america": "US", "america": "US", "vereinigte staaten von amerika": "US",
	"etats unis d amerique": "US", "estados unidos de america": "US", "eeuu": "US", "ee uu": "US",
	"brd": "DE", "bundesrepublik deutschland": "DE", "federal republic of germany": "DE",
	"holland": "NL", "the netherlands": "NL", "hollande": "NL", "holanda": "NL", "pays bas": "NL",
	"czech republic": "CZ", "tschechische republik": "CZ", "republique tcheque": "CZ", "republica checa": "CZ", "ceska republika": "CZ",
	"russian federation": "RU", "south korea": "KR", "republic of korea": "KR", "korea": "KR", "republic of ireland": "IE", "eire": "IE",
	"viet nam": "VN", "turkey": "TR", "turkiye": "TR", "turkei": "TR", "republic of turkey": "TR", "ivory coast": "CI", "elfenbeinkuste": "CI",
	"macedonia": "MK", "swaziland": "SZ", "burma": "MM", "cape verde": "CV", "uae": "AE", "emirates": "AE", "vae": "AE",
	"people s republic of china": "CN", "volksrepublik china": "CN", "republic of china": "TW", "kosovo": "XK", "xk": "XK", "xkx": "XK",
	"swiss": "CH", "confoederatio helvetica": "CH", "osterreich": "AT", "oesterreich": "AT", "daenemark": "DK", "tuerkei": "TR", "rumaenien": "RO",
	"argentine republic": "AR", "ascension tristan da cunha st helena": "SH", "congo": "CG",
	"democratic people s republic of korea": "KP", "democratic republic of congo": "CD", "eswatini": "SZ",
	"falkland islands malvinas": "FK", "french republic": "FR", "gabonese republic": "GA",
	"heard island mcdonald islands": "HM", "hellenic republic": "GR", "holy see vatican city state": "VA",
	"hong kong special administrative region of china": "HK", "hong kong": "HK", "italian republic": "IT",
	"kingdom of eswatini": "SZ", "kyrgyz republic": "KG", "lao people s democratic republic": "LA",
	"lebanese republic": "LB", "macao special administrative region of china": "MO", "north macedonia": "MK",
	"portuguese republic": "PT", "province of china taiwan": "TW", "republic of congo": "CG",
	"republic of north macedonia": "MK", "rwandese republic": "RW", "sint eustatius saba bonaire": "BQ",
	"sint maarten dutch part": "SX", "slovak republic": "SK", "st martin french part": "MF",
	"state of palestine": "PS", "swiss confederation": "CH", "syrian arab republic": "SY",
	"togolese republic": "TG", "united kingdom of great britain northern ireland": "GB",
	"united mexican states": "MX", "united states minor outlying islands": "UM",
	"virgin islands of united states": "VI", "el": "GR", "u k": "GB", "congo brazzaville": "CG",
	"congo kinshasa": "CD", "zaire": "CD", "dr congo": "CD", "drc": "CD", "state of georgia": "",
	"east timor": "TL", "macao": "MO", "macau": "MO", "hongkong": "HK", "vatican": "VA",
	"vatican city state": "VA", "peoples republic of china": "CN", "holy see": "VA", "czech": "CZ",
	"palestinian territory": "PS", "palestine": "PS", "brunei darussalam": "BN", "lao pdr": "LA", "trinidad": "TT",
	"bosnia": "BA", "micronesia": "FM",
}
